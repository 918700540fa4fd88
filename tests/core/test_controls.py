"""Controls have exactly the size of the mask, and are drawn from where they should be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.controls import (
    draw_inverted_mask,
    draw_random_mask,
    explain_no_inverted_mask,
)
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from tests.core.mask_strategies import make_mask, masks, shapes

SEEDS = st.integers(0, 2**31 - 1)
SMALL = make_mask([[1, 0, 0], [0, 1, 0]], [[0, 0, 1, 0], [0, 0, 0, 1]])


@given(shapes.flatmap(masks), SEEDS)
def test_random_mask_has_the_size_of_the_mask(mask: Mask, seed: int) -> None:
    drawn = draw_random_mask(mask, seed)
    for kind in UnitKind:
        assert drawn[kind].shape == mask[kind].shape
        assert drawn.num_kept(kind) == mask.num_kept(kind)


@given(shapes.flatmap(masks), SEEDS)
def test_inverted_mask_keeps_what_the_mask_removes(mask: Mask, seed: int) -> None:
    drawn = draw_inverted_mask(mask, seed)
    removed = {kind: mask[kind].size - mask.num_kept(kind) for kind in UnitKind}
    fits = all(removed[kind] in (0, *range(mask.num_kept(kind), 10**6)) for kind in UnitKind)
    if not fits or not any(removed.values()):
        assert drawn is None
        assert explain_no_inverted_mask(mask) is not None
        return
    assert drawn is not None
    assert explain_no_inverted_mask(mask) is None
    for kind in UnitKind:
        assert drawn.num_kept(kind) == mask.num_kept(kind)
        if removed[kind]:
            assert not (drawn[kind] & mask[kind]).any()
        else:
            assert drawn[kind].all()


@given(shapes.flatmap(masks), SEEDS)
def test_draws_are_decided_by_the_seed(mask: Mask, seed: int) -> None:
    assert draw_random_mask(mask, seed) == draw_random_mask(mask, seed)
    assert draw_inverted_mask(mask, seed) == draw_inverted_mask(mask, seed)


def test_every_unit_is_drawn_equally_often() -> None:
    counts = sum(draw_random_mask(SMALL, seed)[UnitKind.HEAD].astype(int) for seed in range(3000))
    np.testing.assert_allclose(counts / 3000, 1 / 3, atol=0.03)


def test_random_masks_differ_from_layer_to_layer_in_number() -> None:
    """The draw is over the whole model, not within each layer."""
    per_layer = Counter(
        tuple(draw_random_mask(SMALL, seed)[UnitKind.HEAD].sum(axis=1)) for seed in range(200)
    )
    assert set(per_layer) == {(2, 0), (1, 1), (0, 2)}


def test_inverted_mask_of_half_of_the_units_is_the_complement() -> None:
    mask = make_mask([[1, 0], [0, 1]], [[1, 1, 0, 0], [0, 1, 1, 0]])
    complement = Mask({kind: ~mask[kind] for kind in UnitKind})
    assert all(draw_inverted_mask(mask, seed) == complement for seed in range(3))


@pytest.mark.parametrize(
    ("heads", "neurons", "reason"),
    [
        ([[1, 1, 0]], [[1, 0, 0]], "only 1 heads are removed and 2 are kept"),
        ([[1, 0, 0]], [[1, 1, 0]], "only 1 neurons are removed and 2 are kept"),
        ([[1, 1]], [[1]], "nothing is removed"),
    ],
)
def test_mask_that_cannot_be_inverted(
    heads: list[list[int]], neurons: list[list[int]], reason: str
) -> None:
    mask = make_mask(heads, neurons)
    assert explain_no_inverted_mask(mask) == reason
    assert draw_inverted_mask(mask, 0) is None


def test_kind_that_is_whole_stays_whole() -> None:
    mask = make_mask([[1, 1], [1, 1]], [[1, 0, 0], [0, 0, 1]])
    for drawn in (draw_random_mask(mask, 5), draw_inverted_mask(mask, 5)):
        assert drawn is not None
        assert drawn[UnitKind.HEAD].all()
