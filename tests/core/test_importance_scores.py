"""Importance values are immutable; layers are normalised over live units alone."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from distprune.core.importance_scores import Criterion, Importance, Normalisation, normalise
from distprune.core.units import UnitKind
from tests.core.mask_strategies import make_mask

MASK = make_mask([[1, 1, 0], [1, 1, 1], [0, 0, 0]], [[1], [1], [1]])


def importance(heads: object) -> Importance:
    return Importance({UnitKind.HEAD: np.array(heads), UnitKind.NEURON: np.zeros((3, 1))})


@pytest.mark.parametrize(
    ("normalisation", "first_layer"),
    [
        (Normalisation.L2, [0.6, 0.8, 0.0]),
        (Normalisation.L1, [3 / 7, 4 / 7, 0.0]),
        (Normalisation.MAX, [0.75, 1.0, 0.0]),
        (Normalisation.NONE, [3.0, 4.0, 0.0]),
    ],
)
def test_layers_by_hand(normalisation: Normalisation, first_layer: list[float]) -> None:
    # The masked unit is the largest: were it in the norm, all would be near zero.
    source = importance([[3.0, 4.0, 1e9], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    result = normalise(source, MASK, normalisation)
    np.testing.assert_allclose(result["head"][0], first_layer)


@pytest.mark.parametrize("normalisation", Normalisation)
def test_layer_of_zeros_stays_zero(normalisation: Normalisation) -> None:
    source = importance([[3.0, 4.0, 5.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    result = normalise(source, MASK, normalisation)
    assert result["head"][1].tolist() == [0.0, 0.0, 0.0]
    assert result["head"][2].tolist() == [0.0, 0.0, 0.0]
    assert result["neuron"].tolist() == [[0.0]] * 3
    assert result.is_finite


def test_masked_nan_is_zero_and_live_nan_shows() -> None:
    live = importance([[np.nan, 1.0, 1.0], [1.0] * 3, [1.0] * 3])
    assert not live.is_finite
    assert not normalise(live, MASK, Normalisation.L2).is_finite
    masked = importance([[1.0, 1.0, np.nan], [1.0] * 3, [np.inf] * 3])
    assert normalise(masked, MASK, Normalisation.L2).is_finite


def test_scores_are_read_only_and_not_shared() -> None:
    heads = np.ones((3, 3))
    value = Importance({UnitKind.HEAD: heads, UnitKind.NEURON: np.ones((3, 1))})
    heads[0, 0] = 7.0
    assert value["head"][0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        value["head"][0, 0] = 7.0
    with pytest.raises(TypeError):
        value.scores[UnitKind.HEAD] = heads  # type: ignore[index]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies_are_read_only_too(copied: object) -> None:
    value = copied(importance(np.ones((3, 3))))  # type: ignore[operator]
    assert value["head"].tolist() == np.ones((3, 3)).tolist()
    assert not value["head"].flags.writeable


def test_only_gradients_need_data() -> None:
    assert [criterion for criterion in Criterion if criterion.needs_data] == [
        Criterion.ABS_GRADIENT,
        Criterion.FISHER,
    ]
