"""Joint allocation: heads and neurons ranked together by importance per parameter or MAC."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distprune.core.cost import CostKind, encoder_cost, unit_cost
from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.selection import Allocation, SelectionRule, select
from distprune.core.units import EncoderShape, UnitKind
from tests.core.mask_strategies import make_mask, pruning_states

State = tuple[EncoderShape, Importance, Mask]
JOINT = (Allocation.JOINT_PARAMETERS, Allocation.JOINT_MACS)
COST = {Allocation.JOINT_PARAMETERS: CostKind.PARAMETERS, Allocation.JOINT_MACS: CostKind.MACS}
SHAPE = EncoderShape(num_layers=2, num_heads=3, num_neurons=4, hidden_size=12, head_size=4)
DENSE = Mask.dense(SHAPE)


def total_cost(shape: EncoderShape, mask: Mask, cost: CostKind) -> float:
    """Cost of the removed units."""
    return sum(
        unit_cost(kind, shape, cost, 128.0) * float((~mask[kind]).sum()) for kind in UnitKind
    )


def one_score(heads: float, neurons: float) -> Importance:
    """Give all heads one score and all neurons another."""
    return Importance(
        {UnitKind.HEAD: np.full((2, 3), heads), UnitKind.NEURON: np.full((2, 4), neurons)}
    )


def test_sparsity_is_of_the_parameters_that_may_go() -> None:
    # A head has 204 parameters, a neuron 25: 712 of 2 * (3 * 204 + 4 * 25) are a half. Neurons are
    # worth more per parameter, so 4 heads (816) go; without the neurons, 3 of 6 heads.
    rule = SelectionRule(tuple(UnitKind), Allocation.JOINT_PARAMETERS)
    result = select(one_score(1.0, 1.0), DENSE, SHAPE, 0.5, rule)
    assert (result.num_kept("head"), result.num_kept("neuron")) == (2, 8)
    heads_only = SelectionRule((UnitKind.HEAD,), Allocation.JOINT_PARAMETERS)
    assert select(one_score(1.0, 1.0), DENSE, SHAPE, 0.5, heads_only).num_kept("head") == 3
    nothing = encoder_cost(SHAPE, make_mask(~DENSE["head"], ~DENSE["neuron"]), 1).parameters
    prunable = encoder_cost(SHAPE, DENSE, 1).parameters - nothing
    assert (encoder_cost(SHAPE, result, 1).parameters - nothing) / prunable <= 0.5


def test_macs_depend_on_the_sequence_length() -> None:
    # Long sequences make attention dear: per MAC, heads are then worth less than neurons.
    importance = one_score(10.0, 1.0)
    kept = []
    for num_tokens in (1.0, 1000.0):
        rule = SelectionRule(tuple(UnitKind), Allocation.JOINT_MACS, num_tokens=num_tokens)
        result = select(importance, DENSE, SHAPE, 0.05, rule)
        kept.append((result.num_kept("head") == 6, result.num_kept("neuron") == 8))
    assert kept == [(True, False), (False, True)]


def test_units_gone_before_count() -> None:
    before = make_mask([[0, 0, 1], [0, 0, 1]], DENSE["neuron"])
    rule = SelectionRule(tuple(UnitKind), Allocation.JOINT_PARAMETERS)
    assert select(one_score(1.0, 1.0), before, SHAPE, 0.5, rule) == before


def test_joint_ties_go_by_layer_then_kind() -> None:
    # One head has the parameters of 204 / 25 neurons; scores are per parameter, all equal.
    heads, neurons = (unit_cost(kind, SHAPE, CostKind.PARAMETERS, 128.0) for kind in UnitKind)
    importance = one_score(heads, neurons)
    rule = SelectionRule(tuple(UnitKind), Allocation.JOINT_PARAMETERS)
    result = select(importance, DENSE, SHAPE, 0.5, rule)
    assert result["head"].tolist() == [[False] * 3, [True] * 3]
    assert result["neuron"].tolist() == [[False] * 4, [True] * 4]


@given(state=pruning_states(ties=False), percent=st.integers(0, 99))
@pytest.mark.parametrize("allocation", JOINT)
def test_joint_allocation_meets_its_budget(
    allocation: Allocation, state: State, percent: int
) -> None:
    shape, importance, _ = state
    dense, cost = Mask.dense(shape), COST[allocation]
    result = select(
        importance, dense, shape, percent / 100, SelectionRule(tuple(UnitKind), allocation)
    )
    nothing = Mask({kind: ~dense[kind] for kind in UnitKind})
    budget = percent / 100 * total_cost(shape, nothing, cost)
    removed = total_cost(shape, result, cost)
    assert removed >= budget * (1 - 1e-9)
    per_cost = {kind: importance[kind] / unit_cost(kind, shape, cost, 128.0) for kind in UnitKind}
    lost = [score for kind in UnitKind for score in per_cost[kind][~result[kind]]]
    kept = [score for kind in UnitKind for score in per_cost[kind][result[kind]]]
    assume(lost and kept)
    # Who goes is worth less per parameter (MAC) than who stays, and the last to go was needed.
    assert max(lost) <= min(kept)
    _, cost_of_last = max(
        (score, unit_cost(kind, shape, cost, 128.0))
        for kind in UnitKind
        for score in per_cost[kind][~result[kind]]
    )
    assert removed - cost_of_last < budget
