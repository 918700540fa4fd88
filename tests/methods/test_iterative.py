"""One loop: iterative structural pruning, the lottery ticket and pruning alone are settings."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.mixing import MixingOperator
from distprune.core.selection import num_removed
from distprune.core.units import UnitKind
from distprune.methods.spec import PretrainedObjective
from distprune.methods.ticket import MeasuredImportance, Ticket, WeightsReference
from tests.methods.fake_stages import (
    FINE_TUNED,
    SHAPE,
    FakeStages,
    make_importance,
    make_spec,
    run_levels,
)

DENSE = Mask.dense(SHAPE)


@pytest.mark.parametrize("point", [0.0, 0.5, 1.0])
def test_every_level_retrains_from_the_rewinding_point(point: float) -> None:
    stages = FakeStages()
    tickets = run_levels(make_spec(retraining="every_level", rewinding=point), stages)
    start = f"retrain dense {point}"
    assert stages.calls == [
        *("score pretrained", "score dense 1.0", start),
        *("score pretrained", "score retrained 1", start),
        *("score pretrained", "score retrained 2", start),
    ]
    assert [ticket.weights for ticket in tickets] == [
        FINE_TUNED,
        *(WeightsReference("retrained", str(number)) for number in (1, 2, 3)),
    ]


def test_continue_retrains_from_the_level_before() -> None:
    stages = FakeStages()
    run_levels(make_spec(retraining="every_level", rewinding="continue"), stages)
    retrainings = [call for call in stages.calls if call.startswith("retrain")]
    assert retrainings == ["retrain dense 1.0", "retrain retrained 1", "retrain retrained 2"]


@pytest.mark.parametrize(
    ("rewinding", "start"), [(0.0, "dense 0.0"), (0.5, "dense 0.5"), ("continue", "dense 1.0")]
)
def test_last_level_scores_the_dense_model_and_retrains_once(
    rewinding: float | str, start: str
) -> None:
    stages = FakeStages()
    tickets = run_levels(make_spec(retraining="last_level", rewinding=rewinding), stages)
    scores = ["score pretrained", "score dense 1.0"]
    assert stages.calls == [*scores * 3, f"retrain {start}"]
    assert [ticket.weights for ticket in tickets[:3]] == [FINE_TUNED] * 3
    assert tickets[3].weights == WeightsReference("retrained", "1")


def test_never_prunes_without_training() -> None:
    stages = FakeStages()
    tickets = run_levels(make_spec(retraining="never"), stages)
    assert stages.calls == ["score pretrained", "score dense 1.0"] * 3
    assert [ticket.weights for ticket in tickets] == [FINE_TUNED] * 4
    assert tickets[3].mask.sparsity("head") == 0.5


def test_retraining_gets_the_mask_of_its_own_level() -> None:
    stages = FakeStages()
    tickets = run_levels(make_spec(), stages)
    assert stages.retrained_masks == [ticket.mask for ticket in tickets[1:]]


@pytest.mark.parametrize(
    ("mixing", "pretrained", "finetuned"),
    [
        ({"coefficient": 0.0}, False, True),
        ({"coefficient": 1.0}, True, False),
        ({"coefficient": 0.5}, True, True),
        ({"operator": "geometric", "coefficient": 0.0}, False, True),
        ({"operator": "rank_average", "coefficient": 1.0}, True, False),
        ({"operator": "max", "coefficient": 0.0}, True, True),
        ({"operator": "finetuned"}, False, True),
        ({"operator": "pretrained"}, True, False),
    ],
)
def test_a_source_without_part_in_the_mix_is_never_measured(
    mixing: dict[str, Any], pretrained: bool, finetuned: bool
) -> None:
    stages = FakeStages()
    tickets = run_levels(make_spec(mixing=mixing, retraining="never"), stages)
    assert stages.calls.count("score pretrained") == (3 if pretrained else 0)
    assert stages.calls.count("score dense 1.0") == (3 if finetuned else 0)
    evidence = tickets[1].evidence
    assert evidence.pretrained_key == ("pretrained-score" if pretrained else None)
    assert evidence.finetuned_key == ("finetuned-score" if finetuned else None)
    assert evidence.pretrained_objective == ("mlm" if pretrained else None)


@pytest.mark.parametrize(("coefficient", "source"), [(0.0, "finetuned"), (1.0, "pretrained")])
def test_the_ends_of_the_mix_are_the_single_sources(coefficient: float, source: str) -> None:
    mixed = run_levels(make_spec(mixing={"coefficient": coefficient}), FakeStages())
    alone = run_levels(make_spec(mixing={"operator": source}), FakeStages())
    other = run_levels(make_spec(mixing={"coefficient": 1.0 - coefficient}), FakeStages())
    assert [ticket.mask for ticket in mixed] == [ticket.mask for ticket in alone]
    assert mixed[-1].mask != other[-1].mask


def test_the_scale_of_a_source_does_not_decide() -> None:
    pretrained = make_importance(1)
    louder = Importance({kind: pretrained[kind] * 1000.0 for kind in UnitKind})
    plain = run_levels(make_spec(), FakeStages(pretrained=pretrained))
    scaled = run_levels(make_spec(), FakeStages(pretrained=louder))
    assert [ticket.mask for ticket in plain] == [ticket.mask for ticket in scaled]


def test_coupled_scores_the_pretrained_model_under_the_current_mask() -> None:
    stages = FakeStages()
    tickets = run_levels(make_spec(importance={"pretrained_mask": "coupled"}), stages)
    assert stages.pretrained_masks == [ticket.mask for ticket in tickets[:3]]
    assert stages.pretrained_masks[1] != DENSE


def test_static_scores_the_pretrained_model_without_a_mask() -> None:
    stages = FakeStages()
    tickets = run_levels(make_spec(importance={"pretrained_mask": "static"}), stages)
    assert stages.pretrained_masks == [DENSE] * 3
    assert tickets[2].mask.is_within(tickets[1].mask)


def test_evidence_names_the_objective_in_use() -> None:
    stages = FakeStages(pretrained_objective=PretrainedObjective.TASK_PROBE)
    tickets = run_levels(make_spec(importance={"pretrained_objective": "auto"}), stages)
    assert [ticket.evidence.pretrained_objective for ticket in tickets[1:]] == ["task_probe"] * 3
    assert tickets[0].evidence.pretrained_objective is None


class WithoutObjective(FakeStages):
    """A checkpoint that cannot serve the objective that the settings name."""

    @property
    def pretrained_objective(self) -> PretrainedObjective:  # type: ignore[override]
        raise AssertionError("nobody measures with an objective here")

    @pretrained_objective.setter
    def pretrained_objective(self, value: PretrainedObjective) -> None:
        pass


def test_magnitude_has_no_objective() -> None:
    spec = make_spec(importance={"criterion": "magnitude", "pretrained_objective": "mlm"})
    tickets = run_levels(spec, WithoutObjective())
    assert tickets[1].evidence.pretrained_key == "pretrained-score"
    assert tickets[1].evidence.pretrained_objective is None


@pytest.mark.parametrize("operator", list(MixingOperator))
def test_random_asks_for_one_score_whatever_the_mix_says(operator: MixingOperator) -> None:
    stages = FakeStages()
    spec = make_spec(importance={"criterion": "random"}, mixing={"operator": operator})
    tickets = run_levels(spec, stages)
    assert "score pretrained" not in stages.calls
    assert tickets[3].mask.sparsity("head") == 0.5


def test_random_is_not_weighed_by_layer() -> None:
    # Each layer's norm would make the second layer the more important one.
    scores = {
        UnitKind.HEAD: np.array([[0.9] * 5, [0.1, 0.2, 0.2, 0.2, 0.2]]),
        UnitKind.NEURON: np.ones((2, 10)),
    }
    spec = make_spec(importance={"criterion": "random"}, schedule={"shape": "one_shot"})
    tickets = run_levels(spec, FakeStages(finetuned=Importance(scores)))
    np.testing.assert_array_equal(tickets[1].mask["head"], [[True] * 5, [False] * 5])


class Forgetful(FakeStages):
    """After the first level, all units are worth the same: nothing."""

    def score_finetuned(self, ticket: Ticket) -> MeasuredImportance:
        scores = {kind: self.finetuned[kind] * (ticket.level == 0) for kind in UnitKind}
        return MeasuredImportance(Importance(scores), "finetuned-score")


def test_a_unit_that_is_gone_stays_gone_whatever_the_scores_say_later() -> None:
    rising = {kind: np.arange(DENSE[kind].size, 0.0, -1).reshape(2, -1) for kind in UnitKind}
    stages = Forgetful(finetuned=Importance(rising))
    spec = make_spec(
        mixing={"operator": "finetuned"}, importance={"normalisation": "none"}, units=["head"]
    )
    masks = [ticket.mask["head"].astype(int).tolist() for ticket in run_levels(spec, stages)]
    # The last two units go first; then, all being equal, the first ones.
    assert masks[1] == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert masks[2] == [[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert masks[3] == [[0, 0, 0, 1, 1], [1, 1, 1, 0, 0]]


@given(
    seed=st.integers(0, 2**16),
    levels=st.integers(1, 5),
    shape=st.sampled_from(["one_shot", "linear", "geometric", "cubic"]),
    operator=st.sampled_from(list(MixingOperator)),
    criterion=st.sampled_from(["abs_gradient", "random"]),
    kinds=st.sampled_from([("head",), ("neuron",), ("head", "neuron")]),
)
def test_masks_only_shrink_and_meet_each_sparsity(
    seed: int, levels: int, shape: str, operator: str, criterion: str, kinds: tuple[str, ...]
) -> None:
    stages = FakeStages(make_importance(seed), make_importance(seed + 1))
    spec = make_spec(
        units=kinds,
        schedule={"shape": shape, "levels": levels},
        importance={"criterion": criterion},
        mixing={"operator": operator},
    )
    tickets = run_levels(spec, stages)
    assert [ticket.level for ticket in tickets] == list(range(len(spec.sparsities) + 1))
    assert tickets[-1].sparsity == spec.target_sparsity
    for before, after in pairwise(tickets):
        assert after.mask.is_within(before.mask)
        for kind in UnitKind:
            gone = num_removed(after.sparsity, SHAPE.total(kind)) if kind in kinds else 0
            assert after.mask.num_kept(kind) == SHAPE.total(kind) - gone


def test_selection_settings_reach_the_selection() -> None:
    scores = Importance(
        {UnitKind.HEAD: np.array([[0.0] * 5, [1.0] * 5]), UnitKind.NEURON: np.ones((2, 10))}
    )
    spec = make_spec(
        importance={"normalisation": "none"},
        mixing={"operator": "finetuned"},
        selection={"min_heads_per_layer": 2},
    )
    mask = run_levels(spec, FakeStages(finetuned=scores))[-1].mask
    assert mask["head"].sum(axis=1).tolist() == [2, 3]


def test_allocation_counts_macs_at_the_length_of_the_task() -> None:
    # One head is worth a hundred neurons, and costs eight of them in a short text.
    scores = Importance({UnitKind.HEAD: np.ones((2, 5)), UnitKind.NEURON: np.full((2, 10), 0.01)})
    spec = make_spec(
        importance={"normalisation": "none"},
        mixing={"operator": "finetuned"},
        selection={"allocation": "joint_macs"},
    )
    short = run_levels(spec, FakeStages(finetuned=scores, num_tokens=1.0))[-1].mask
    long = run_levels(spec, FakeStages(finetuned=scores, num_tokens=1e6))[-1].mask
    assert (short.num_kept("head"), short.num_kept("neuron")) == (6, 0)
    assert (long.num_kept("head"), long.num_kept("neuron")) == (4, 20)
