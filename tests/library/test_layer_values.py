"""Rank correlations by layer; what has no order is not a number, and null on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.importance_scores import FloatArray, Importance
from distprune.core.units import UnitKind
from distprune.library.forgetting import _correlate as spearman
from distprune.library.layer_values import (
    average,
    correlate_layers,
    correlate_pairs,
    read_values,
    write_values,
)
from distprune.library.stability import _correlate as kendall


def make_importance(heads: list[list[float]]) -> Importance:
    rows = np.array(heads)
    return Importance({UnitKind.HEAD: rows, UnitKind.NEURON: rows})


RISING = make_importance([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
FALLING = make_importance([[9.0, 5.0, 1.0], [1.0, 2.0, 3.0]])
SWAPPED = make_importance([[2.0, 1.0, 3.0], [1.0, 2.0, 3.0]])


@pytest.mark.parametrize(
    ("correlate", "swapped"), [(spearman, 0.5), (kendall, 1 / 3)], ids=["spearman", "kendall"]
)
def test_correlation_by_hand(correlate: object, swapped: float) -> None:
    measured = correlate_layers(RISING, FALLING, correlate)[UnitKind.HEAD]  # type: ignore[arg-type]
    np.testing.assert_allclose(measured, [-1.0, np.nan])
    measured = correlate_layers(RISING, SWAPPED, correlate)[UnitKind.NEURON]  # type: ignore[arg-type]
    np.testing.assert_allclose(measured, [swapped, np.nan])


@given(st.permutations(range(6)), st.floats(0.1, 10.0))
def test_only_the_order_counts(order: list[int], power: float) -> None:
    scores = np.array(order, dtype=np.float64)[None] + 1.0
    one = Importance(dict.fromkeys(UnitKind, scores))
    other = Importance(dict.fromkeys(UnitKind, scores**power))
    for correlate in (spearman, kendall):
        assert correlate_layers(one, other, correlate)[UnitKind.HEAD] == pytest.approx([1.0])


def test_pairs_are_averaged() -> None:
    # Layer 0: RISING-FALLING -1, RISING-SWAPPED 1/3, FALLING-SWAPPED -1/3; layer 1: one pair of two
    # that rank anything.
    measured = correlate_pairs([RISING, FALLING, SWAPPED], kendall)[UnitKind.HEAD]
    np.testing.assert_allclose(measured, [-1 / 3, 1.0])


def test_average_of_what_is_defined() -> None:
    values: FloatArray = np.array([[1.0, np.nan, np.nan], [3.0, 2.0, np.nan]])
    np.testing.assert_array_equal(average(values), [2.0, 2.0, np.nan])


def test_undefined_is_null_in_json() -> None:
    values = {UnitKind.HEAD: np.array([[1.0, np.nan]]), UnitKind.NEURON: np.array([[0.5, 0.25]])}
    text = json.dumps(write_values(values), allow_nan=False)
    assert json.loads(text) == {"head": [[1.0, None]], "neuron": [[0.5, 0.25]]}
    for kind, array in read_values(json.loads(text)).items():
        np.testing.assert_array_equal(array, values[kind])
