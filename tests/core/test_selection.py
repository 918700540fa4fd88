"""Selection: exact counts, nested masks, ties, floors, joint budgets."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from distprune.core.cost import CostKind, unit_cost
from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.selection import Allocation, SelectionRule, num_removed, select
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import ConfigError, DivergedTrialError
from tests.core.mask_strategies import importances, make_mask, pruning_states, shapes

State = tuple[EncoderShape, Importance, Mask]
BOTH = SelectionRule(tuple(UnitKind))
COST = {Allocation.JOINT_PARAMETERS: CostKind.PARAMETERS, Allocation.JOINT_MACS: CostKind.MACS}
# Decimal sparsities, as people write them: 0.1 * 3 is not 0.3 in floats.
tenths = st.integers(0, 99).map(lambda percent: Fraction(percent, 100))

SHAPE = EncoderShape(num_layers=2, num_heads=3, num_neurons=4, hidden_size=12, head_size=4)
DENSE = Mask.dense(SHAPE)


def scores(heads: ArrayLike, neurons: ArrayLike | None = None) -> Importance:
    return Importance(
        {
            UnitKind.HEAD: np.array(heads, dtype=np.float64),
            UnitKind.NEURON: np.array(np.ones((2, 4)) if neurons is None else neurons),
        }
    )


@given(state=pruning_states(), sparsity=tenths)
def test_separate_kinds_equal_the_definition(state: State, sparsity: Fraction) -> None:
    shape, importance, mask = state
    result = select(importance, mask, shape, float(sparsity), BOTH)
    for kind in UnitKind:
        wanted = math.ceil(sparsity * shape.total(kind)) - int((~mask[kind]).sum())
        live = sorted(
            (importance[kind][layer, unit], layer, unit) for layer, unit in np.argwhere(mask[kind])
        )
        expected = mask[kind].copy()
        for _, layer, unit in live[: max(wanted, 0)]:
            expected[layer, unit] = False
        assert np.array_equal(result[kind], expected)


@given(state=pruning_states(), sparsities=st.lists(tenths, min_size=2, max_size=4))
@pytest.mark.parametrize("allocation", Allocation)
def test_levels_are_nested(
    allocation: Allocation, state: State, sparsities: list[Fraction]
) -> None:
    shape, importance, mask = state
    rule = SelectionRule(tuple(UnitKind), allocation)
    for sparsity in sorted(sparsities):
        narrower = select(importance, mask, shape, float(sparsity), rule)
        assert narrower.is_within(mask)
        mask = narrower


@given(shape=shapes, data=st.data(), first=tenths, second=tenths)
def test_two_levels_equal_one_with_the_same_scores(
    shape: EncoderShape, data: st.DataObject, first: Fraction, second: Fraction
) -> None:
    importance = data.draw(importances(shape))
    dense = Mask.dense(shape)
    half = select(importance, dense, shape, float(min(first, second)), BOTH)
    target = float(max(first, second))
    assert select(importance, half, shape, target, BOTH) == select(
        importance, dense, shape, target, BOTH
    )


@pytest.mark.parametrize(
    ("sparsity", "total", "removed"),
    [
        (0.1 * 3, 10, 3),
        (0.3, 10, 3),
        (0.31, 10, 4),
        (0.0, 10, 0),
        (0.7, 144, 101),
        (0.25, 12, 3),
        (1 - 0.9, 10, 1),
        (0.999, 12, 12),
    ],
)
def test_number_removed(sparsity: float, total: int, removed: int) -> None:
    assert num_removed(sparsity, total) == removed


def test_ties_go_by_layer_then_unit() -> None:
    importance = scores([[2, 1, 1], [1, 1, 0]])
    result = select(importance, DENSE, SHAPE, 0.5, BOTH)
    assert result["head"].tolist() == [[True, False, False], [True, True, False]]
    assert result["neuron"].tolist() == [[False] * 4, [True] * 4]


def test_dead_units_are_not_selected_again() -> None:
    # The dead have the lowest scores: counting them again would remove too few.
    before = make_mask([[0, 1, 1], [1, 1, 1]], DENSE["neuron"])
    importance = scores([[0.0, 5.0, 6.0], [1.0, 2.0, 9.0]])
    result = select(importance, before, SHAPE, 0.5, SelectionRule((UnitKind.HEAD,)))
    assert result["head"].tolist() == [[False, True, True], [False, False, True]]


def test_dead_units_stay_dead_whatever_their_score() -> None:
    before = make_mask([[0, 1, 1], [1, 1, 1]], DENSE["neuron"])
    importance = scores([[99.0, 5.0, 6.0], [1.0, 2.0, 9.0]])
    result = select(importance, before, SHAPE, 1 / 6, SelectionRule((UnitKind.HEAD,)))
    assert result == before


def test_kinds_not_in_the_rule_are_kept() -> None:
    result = select(scores(np.ones((2, 3))), DENSE, SHAPE, 0.5, SelectionRule((UnitKind.NEURON,)))
    assert result.num_kept("head") == 6
    assert result.num_kept("neuron") == 4


@given(state=pruning_states(), sparsity=tenths, floor=st.integers(0, 4))
@pytest.mark.parametrize("allocation", Allocation)
def test_floor_is_kept_or_refused(
    allocation: Allocation, state: State, sparsity: Fraction, floor: int
) -> None:
    shape, importance, _ = state
    dense = Mask.dense(shape)
    rule = SelectionRule(tuple(UnitKind), allocation, {UnitKind.HEAD: floor, UnitKind.NEURON: 1})
    try:
        result = select(importance, dense, shape, float(sparsity), rule)
    except ConfigError:
        # Refused only if keeping no more than the floor falls short of the sparsity.
        kept = {UnitKind.HEAD: min(floor, shape.num_heads), UnitKind.NEURON: 1}
        removable = {kind: shape.total(kind) - shape.num_layers * kept[kind] for kind in UnitKind}
        costs = {
            kind: unit_cost(kind, shape, COST.get(allocation, CostKind.PARAMETERS), 128.0)
            for kind in UnitKind
        }
        if allocation is Allocation.SEPARATE:
            assert any(removable[kind] < sparsity * shape.total(kind) for kind in UnitKind)
        else:
            most = sum(removable[kind] * costs[kind] for kind in UnitKind)
            assert most < float(sparsity) * sum(
                shape.total(kind) * costs[kind] for kind in UnitKind
            )
        return
    assert result["head"].sum(axis=1).min() >= min(floor, shape.num_heads)
    assert result["neuron"].sum(axis=1).min() >= 1
    if allocation is Allocation.SEPARATE:
        for kind in UnitKind:
            assert (~result[kind]).sum() == math.ceil(sparsity * shape.total(kind))


def test_floor_protects_the_best_of_each_layer() -> None:
    importance = scores([[1, 2, 3], [4, 5, 6]])
    rule = SelectionRule((UnitKind.HEAD,), min_per_layer={UnitKind.HEAD: 1})
    result = select(importance, DENSE, SHAPE, 0.5, rule)
    assert result["head"].tolist() == [[False, False, True], [False, True, True]]


def test_floor_too_high_is_refused() -> None:
    rule = SelectionRule((UnitKind.HEAD,), min_per_layer={UnitKind.HEAD: 2})
    with pytest.raises(ConfigError, match=r"min units per layer: \{'head': 2\} leaves too few"):
        select(scores(np.ones((2, 3))), DENSE, SHAPE, 0.5, rule)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_score_that_is_not_finite_stops_the_trial(value: float) -> None:
    with pytest.raises(DivergedTrialError, match="a score is not finite"):
        select(scores([[1.0, 2.0, value], [1.0, 2.0, 3.0]]), DENSE, SHAPE, 0.5, BOTH)


@given(state=pruning_states(ties=False), sparsity=tenths, data=st.data())
@pytest.mark.parametrize("allocation", [Allocation.SEPARATE, Allocation.JOINT_PARAMETERS])
def test_permuted_units_are_selected_alike(
    allocation: Allocation, state: State, sparsity: Fraction, data: st.DataObject
) -> None:
    shape, importance, mask = state
    if allocation is not Allocation.SEPARATE:
        per_cost = np.concatenate(
            [
                (importance[kind] / unit_cost(kind, shape, CostKind.PARAMETERS, 128.0)).ravel()
                for kind in UnitKind
            ]
        )
        assume(len(np.unique(per_cost)) == len(per_cost))
    rule = SelectionRule(tuple(UnitKind), allocation)
    layers = data.draw(st.permutations(range(shape.num_layers)))
    orders = {
        kind: data.draw(st.permutations(range(shape.units_per_layer(kind)))) for kind in UnitKind
    }
    result = select(importance, mask, shape, float(sparsity), rule)
    permuted = select(
        Importance({kind: importance[kind][layers][:, orders[kind]] for kind in UnitKind}),
        Mask({kind: mask[kind][layers][:, orders[kind]] for kind in UnitKind}),
        shape,
        float(sparsity),
        rule,
    )
    for kind in UnitKind:
        assert np.array_equal(permuted[kind], result[kind][layers][:, orders[kind]])


def test_inputs_are_not_modified() -> None:
    importance, before = scores([[1, 2, 3], [4, 5, 6]]), Mask.dense(SHAPE)
    select(importance, before, SHAPE, 0.5, BOTH)
    assert before == Mask.dense(SHAPE)
    assert importance["head"].tolist() == [[1, 2, 3], [4, 5, 6]]
