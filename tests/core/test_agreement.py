"""Agreement by hand, and chance against masks that are really drawn at random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.agreement import expect_layer_overlap, expect_overlap, measure_agreement
from distprune.core.controls import draw_random_mask
from distprune.core.mask import Mask
from distprune.core.mask_algebra import measure_overlap
from distprune.core.units import UnitKind
from tests.core.mask_strategies import make_mask, masks, shapes


def test_agreement_is_averaged_over_pairs() -> None:
    one = make_mask([[1, 1, 0], [1, 0, 0]], [[1], [1]])
    two = make_mask([[1, 1, 0], [0, 1, 0]], [[1], [0]])
    three = make_mask([[1, 0, 1], [0, 1, 0]], [[0], [0]])
    agreement = measure_agreement([one, two, three])
    # Layer 0: {0,1} {0,1} {0,2}: 1, 1/3, 1/3. Layer 1: {0} {1} {1}: 0, 0, 1.
    np.testing.assert_allclose(agreement[UnitKind.HEAD], [5 / 9, 1 / 3])
    np.testing.assert_allclose(agreement[UnitKind.NEURON], [1 / 3, 1 / 3])


@given(shapes.flatmap(masks), st.integers(2, 4))
def test_equal_masks_agree_wholly(mask: Mask, count: int) -> None:
    for values in measure_agreement([mask] * count).values():
        assert (values == 1.0).all()


def test_one_mask_agrees_with_nothing() -> None:
    with pytest.raises(ValueError, match="two at least"):
        measure_agreement([make_mask([[1]], [[1]])])


@pytest.mark.parametrize(
    ("num_units", "units_per_layer", "num_kept"), [(6, 3, 1), (6, 3, 3), (8, 2, 3), (12, 4, 9)]
)
def test_chance_is_that_of_drawn_masks(num_units: int, units_per_layer: int, num_kept: int) -> None:
    flat = np.arange(num_units) < num_kept
    layers = flat.reshape(-1, units_per_layer)
    mask = Mask({UnitKind.HEAD: layers, UnitKind.NEURON: layers})
    overlaps = [
        measure_overlap(draw_random_mask(mask, 2 * n), draw_random_mask(mask, 2 * n + 1))
        for n in range(3000)
    ]
    drawn = np.mean([overlap[UnitKind.HEAD] for overlap in overlaps])
    expected = expect_layer_overlap(num_units, units_per_layer, num_kept)
    assert expected == pytest.approx(drawn, abs=0.015)


@given(st.integers(1, 12), st.integers(1, 6), st.data())
def test_chance_is_a_share(units: int, layers: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, units * layers))
    assert 0.0 <= expect_layer_overlap(units * layers, units, kept) <= 1.0


def test_chance_at_the_ends_and_by_hand() -> None:
    assert expect_layer_overlap(12, 4, 0) == 1.0
    assert expect_layer_overlap(12, 4, 12) == pytest.approx(1.0)
    # One unit of two in one layer: the same in half of the draws, else nothing in common.
    assert expect_layer_overlap(2, 2, 1) == pytest.approx(0.5)
    # The same in two layers of one unit: shared, 1 and empty 1, or else 0 and 0.
    assert expect_layer_overlap(2, 1, 1) == pytest.approx(0.5)


def test_chance_of_many_units_is_that_of_coins() -> None:
    """Keeping each unit by a coin of p, two masks share p / (2 - p) of what either keeps."""
    assert expect_layer_overlap(12 * 3072, 3072, 6 * 3072) == pytest.approx(1 / 3, abs=1e-3)


def test_chance_counts_each_kind_by_itself() -> None:
    mask = make_mask([[1, 0], [1, 0]], [[1, 1, 1], [1, 1, 1]])
    chance = expect_overlap(mask)
    assert chance[UnitKind.HEAD] == pytest.approx(expect_layer_overlap(4, 2, 2))
    assert chance[UnitKind.NEURON] == pytest.approx(1.0)
