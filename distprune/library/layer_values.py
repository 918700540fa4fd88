"""Values by unit kind and layer as JSON has them; where a value is not defined there is null."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from distprune.core.importance_scores import FloatArray, Importance
from distprune.core.units import UnitKind

LayerValues = Mapping[UnitKind, FloatArray]
"""For each kind floats [..., layer]; nan = not defined."""

RankCorrelation = Callable[[FloatArray, FloatArray], float]
"""Correlation of two rows of scores that are not constant, in [-1, 1]."""


def correlate_layers(one: Importance, other: Importance, correlate: RankCorrelation) -> LayerValues:
    """Return the rank correlation of two importances in each layer.

    Returns:
        For each kind floats [layer] in [-1, 1]; nan where all scores of a layer are equal, or there
        is one unit only, so that nothing is ranked.
    """
    return {
        kind: np.array(
            [
                correlate(*rows) if all(np.ptp(row) > 0 for row in rows) else np.nan
                for rows in zip(one[kind], other[kind], strict=True)
            ]
        )
        for kind in UnitKind
    }


def correlate_pairs(importances: list[Importance], correlate: RankCorrelation) -> LayerValues:
    """Return the rank correlation in each layer, averaged over all pairs of importances."""
    pairs = [correlate_layers(one, other, correlate) for one, other in combinations(importances, 2)]
    return {kind: average(np.array([pair[kind] for pair in pairs])) for kind in UnitKind}


def average(values: FloatArray) -> FloatArray:
    """Average over the first axis what is defined; nan where nothing is."""
    defined = np.isfinite(values)
    counts = defined.sum(axis=0)
    sums = np.where(defined, values, 0.0).sum(axis=0)
    averages: FloatArray = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return averages


def write_values(values: LayerValues) -> dict[str, Any]:
    """Return values as JSON has them."""
    return {str(kind): _to_lists(values[kind]) for kind in UnitKind}


def read_values(values: Mapping[str, Any]) -> LayerValues:
    """Read what `write_values` returned."""
    return {kind: np.array(values[kind], dtype=np.float64) for kind in UnitKind}


def _to_lists(values: FloatArray) -> Any:
    if values.ndim > 1:
        return [_to_lists(row) for row in values]
    return [float(value) if np.isfinite(value) else None for value in values]
