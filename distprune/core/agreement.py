"""Agreement of several masks: how much they overlap, and how much masks drawn at random would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from distprune.core.importance_scores import FloatArray
from distprune.core.mask import Mask
from distprune.core.mask_algebra import measure_overlap
from distprune.core.units import UnitKind


def measure_agreement(masks: Sequence[Mask]) -> Mapping[UnitKind, FloatArray]:
    """Return the Jaccard index of each layer, averaged over all pairs of masks.

    Args:
        masks: Two masks at least, made for the same counts.

    Returns:
        For each kind floats [layer] in [0, 1]; 1 = all keep the same units.

    Raises:
        ValueError: There are fewer than two masks.
        MaskError: They were made for different counts.
    """
    if len(masks) < 2:
        raise ValueError(f"masks: {len(masks)}; agreement needs two at least")
    overlaps = [measure_overlap(one, other) for one, other in combinations(masks, 2)]
    return {kind: np.mean([overlap[kind] for overlap in overlaps], axis=0) for kind in UnitKind}


def expect_overlap(mask: Mask) -> Mapping[UnitKind, float]:
    """Return the Jaccard index of a layer that two random masks of the size of `mask` come to."""
    return {
        kind: expect_layer_overlap(mask[kind].size, mask[kind].shape[1], mask.num_kept(kind))
        for kind in UnitKind
    }


def expect_layer_overlap(num_units: int, units_per_layer: int, num_kept: int) -> float:
    """Return the mean Jaccard index in one layer of two masks, each uniform over the whole model.

    Exact: given that the two share i units, each of the 2 k - i units that either keeps is shared
    with the same probability, so a layer with any of them expects i / (2 k - i); a layer with none
    counts as 1, as in `measure_overlap`.

    Args:
        num_units: Units of the whole model, n.
        units_per_layer: Units of one layer.
        num_kept: Units that each of the two keeps, k.
    """
    if num_kept == 0:
        return 1.0
    shared = np.arange(max(0, 2 * num_kept - num_units), num_kept + 1)
    either = 2 * num_kept - shared
    log_chance = (
        _log_choose(num_kept, shared)
        + _log_choose(num_units - num_kept, num_kept - shared)
        - _log_choose(num_units, np.array([num_kept], dtype=np.intp))
    )
    other_layers = num_units - units_per_layer
    fits = either <= other_layers
    log_none = np.full(len(either), -np.inf)
    log_none[fits] = _log_choose(other_layers, either[fits]) - _log_choose(num_units, either[fits])
    none = np.exp(log_none)
    expected = (1.0 - none) * shared / either + none
    return float(min(1.0, (np.exp(log_chance) * expected).sum()))


def _log_choose(total: int, chosen: NDArray[np.intp]) -> FloatArray:
    """Return the logarithm of the number of ways to choose from `total`."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    logarithm: FloatArray = factorials[total] - factorials[chosen] - factorials[total - chosen]
    return logarithm
