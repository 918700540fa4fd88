"""Mask algebra on masks small enough to see, and as an algebra of sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from distprune.core.mask import Mask
from distprune.core.mask_algebra import intersect, measure_overlap, subtract, unite
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import MaskError
from tests.core.mask_strategies import make_mask, masks

SHAPE = EncoderShape(num_layers=2, num_heads=3, num_neurons=4, hidden_size=6, head_size=2)
FIRST = make_mask([[1, 1, 0], [0, 0, 0]], [[1, 1, 0, 0], [1, 1, 1, 1]])
SECOND = make_mask([[1, 0, 1], [0, 0, 0]], [[0, 1, 1, 0], [0, 0, 0, 0]])


def test_masks_are_sets_of_kept_units() -> None:
    assert unite([FIRST, SECOND]) == make_mask([[1, 1, 1], [0, 0, 0]], [[1, 1, 1, 0], [1, 1, 1, 1]])
    assert intersect([FIRST, SECOND]) == make_mask(
        [[1, 0, 0], [0, 0, 0]], [[0, 1, 0, 0], [0, 0, 0, 0]]
    )
    assert subtract(FIRST, SECOND) == make_mask(
        [[0, 1, 0], [0, 0, 0]], [[1, 0, 0, 0], [1, 1, 1, 1]]
    )


def test_overlap_is_both_over_either_in_each_layer() -> None:
    overlap = measure_overlap(FIRST, SECOND)
    np.testing.assert_allclose(overlap[UnitKind.HEAD], [1 / 3, 1.0])  # both empty: the same units
    np.testing.assert_allclose(overlap[UnitKind.NEURON], [1 / 3, 0.0])


@given(masks(SHAPE), masks(SHAPE), masks(SHAPE))
def test_laws_of_sets(a: Mask, b: Mask, c: Mask) -> None:
    assert unite([a, b, c]) == unite([c, unite([b, a])])
    assert intersect([a, unite([b, c])]) == unite([intersect([a, b]), intersect([a, c])])
    assert unite([subtract(a, b), intersect([a, b])]) == a
    assert subtract(a, a) == subtract(b, b)
    assert intersect([a, b]).is_within(a)
    assert a.is_within(unite([a, b]))


@given(masks(SHAPE), masks(SHAPE))
def test_overlap_is_one_for_equal_masks_only(a: Mask, b: Mask) -> None:
    overlap, turned = measure_overlap(a, b), measure_overlap(b, a)
    for kind in UnitKind:
        np.testing.assert_array_equal(overlap[kind], turned[kind])
        equal = (a[kind] == b[kind]).all(axis=1)
        np.testing.assert_array_equal(overlap[kind] == 1.0, equal)


@pytest.mark.parametrize("operation", [unite, intersect, lambda both: measure_overlap(*both)])
def test_masks_of_different_counts_are_refused(operation: object) -> None:
    other = Mask.dense(EncoderShape(3, 3, 4, 6, 2))
    with pytest.raises(
        MaskError, match="first was made for 2 layers of 3 heads and 4 neurons, num"
    ):
        operation([FIRST, other])  # type: ignore[operator]


def test_no_mask_is_refused() -> None:
    with pytest.raises(MaskError, match="none was given"):
        unite([])
