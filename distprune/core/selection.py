"""Selection: importance and a target sparsity make the next mask. By index, never by threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from distprune.core.cost import CostKind, unit_cost
from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import ConfigError, DivergedTrialError

ROUNDING = 1e-9
"""Slack for sparsities such as 0.1 * 3, so that 0.3 of 10 units is 3 and not 4."""


class Allocation(StrEnum):
    """How a level's sparsity is divided between heads and neurons."""

    SEPARATE = "separate"
    JOINT_PARAMETERS = "joint_parameters"
    JOINT_MACS = "joint_macs"


@dataclass(frozen=True)
class SelectionRule:
    """What may be removed, and how the budget is counted.

    Attributes:
        kinds: Unit kinds that may be removed.
        allocation: `separate`: each kind meets the sparsity by itself. `joint_*`: all units are
            ranked together by importance per parameter (or MAC), and the sparsity is of the
            parameters (or MACs) of the units that may be removed.
        min_per_layer: Units of each kind that every layer keeps.
        num_tokens: Sequence length that MACs are counted at.
    """

    kinds: tuple[UnitKind, ...]
    allocation: Allocation = Allocation.SEPARATE
    min_per_layer: Mapping[UnitKind, int] | None = None
    num_tokens: float = 128.0

    def floor(self, kind: UnitKind) -> int:
        """Return how many units of `kind` every layer keeps."""
        return (self.min_per_layer or {}).get(kind, 0)


def num_removed(sparsity: float, total: int) -> int:
    """Count the units to remove of `total`, so that at least `sparsity` of them is gone."""
    return math.ceil(sparsity * total - ROUNDING)


def select(
    importance: Importance, mask: Mask, shape: EncoderShape, sparsity: float, rule: SelectionRule
) -> Mask:
    """Remove the least important live units until `sparsity` is met.

    Ties are broken by (score, layer, unit). A unit that is gone stays gone.

    Args:
        importance: Score per unit, higher = keep.
        mask: The mask before; the result is within it.
        shape: Counts of the dense encoder.
        sparsity: Removed / total at start, in [0, 1).
        rule: Kinds, allocation and floor.

    Returns:
        The new mask; `mask` is not modified.

    Raises:
        DivergedTrialError: A score is not finite.
        ConfigError: The floor leaves too few units to remove.
    """
    if not importance.is_finite:
        raise DivergedTrialError("importance: a score is not finite; the model has diverged")
    if rule.allocation is Allocation.SEPARATE:
        pools = [
            _Pool((kind,), num_removed(sparsity, shape.total(kind)), {kind: 1.0})
            for kind in rule.kinds
        ]
    else:
        cost = (
            CostKind.PARAMETERS if rule.allocation is Allocation.JOINT_PARAMETERS else CostKind.MACS
        )
        costs = {kind: unit_cost(kind, shape, cost, rule.num_tokens) for kind in rule.kinds}
        total = sum(costs[kind] * shape.total(kind) for kind in rule.kinds)
        pools = [_Pool(rule.kinds, sparsity * total, costs)]
    kept = {kind: mask[kind].copy() for kind in UnitKind}
    for pool in pools:
        _remove_from(kept, importance, pool, rule)
    return Mask(kept)


@dataclass(frozen=True)
class _Pool:
    """Units that are ranked together, and the cost to remove from them in all."""

    kinds: tuple[UnitKind, ...]
    budget: float
    costs: Mapping[UnitKind, float]


def _remove_from(
    kept: dict[UnitKind, NDArray[np.bool_]],
    importance: Importance,
    pool: _Pool,
    rule: SelectionRule,
) -> None:
    """Remove units of one pool from `kept`, in place, cheapest loss first."""
    removed = sum(pool.costs[kind] * float((~kept[kind]).sum()) for kind in pool.kinds)
    live = {kind: kept[kind].sum(axis=1) for kind in pool.kinds}
    slack = ROUNDING * max(pool.budget, 1.0)
    for kind, layer, unit in _ascending(kept, importance, pool):
        if removed >= pool.budget - slack:
            return
        if live[kind][layer] <= rule.floor(kind):
            continue
        kept[kind][layer, unit] = False
        live[kind][layer] -= 1
        removed += pool.costs[kind]
    if removed < pool.budget - slack:
        floors = {str(kind): rule.floor(kind) for kind in pool.kinds}
        raise ConfigError(
            f"min units per layer: {floors} leaves too few units for the target sparsity; "
            "lower the floor or the target"
        )


def _ascending(
    kept: Mapping[UnitKind, NDArray[np.bool_]], importance: Importance, pool: _Pool
) -> Iterator[tuple[UnitKind, int, int]]:
    """Yield live units of the pool, least important per cost first."""
    kinds, layers, units, scores = [], [], [], []
    for index, kind in enumerate(pool.kinds):
        layer, unit = np.nonzero(kept[kind])
        kinds.append(np.full(len(layer), index))
        layers.append(layer)
        units.append(unit)
        scores.append(importance[kind][layer, unit] / pool.costs[kind])
    kind_index, layer_index, unit_index = (np.concatenate(part) for part in (kinds, layers, units))
    order = np.lexsort((unit_index, kind_index, layer_index, np.concatenate(scores)))
    sorted_kinds = (pool.kinds[index] for index in kind_index[order].tolist())
    return zip(sorted_kinds, layer_index[order].tolist(), unit_index[order].tolist(), strict=True)
