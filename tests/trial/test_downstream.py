"""Downstream training: a ticket, controls of exactly its size, the dense model; seed by seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import ConfigError, MaskError
from distprune.methods.ticket import WeightsReference
from distprune.store.store import Store
from distprune.trial.downstream import (
    DENSE,
    TICKET,
    Arm,
    TicketControl,
    TrainedTicket,
    at_seed,
    check_mask,
    choose_control,
    find_checkpoint,
    find_rewinding,
    keep_as_many,
    make_arm,
    parse_rewinding,
    train_downstream,
    train_ticket,
)
from distprune.trial.request import StageRequest
from distprune.trial.runner import run_trial
from distprune.trial.stages import METRICS_FILE, TrialStages
from tests.tiny_study import SHAPE
from tests.trial.canned import CHECKPOINT, CONTEXT, make_stages
from tests.trial.canned import DENSE as WHOLE
from tests.trial.studies import LEARNING, CannedExecutor, TinyStudy, keep

MASK = keep(3, 11)
"""Fewer than half of each kind, so that there is an inverted mask."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


class TestWhatIsTrained:
    """What is asked for; results are made up."""

    def test_ticket_is_retrained_from_where_it_rewinds_to(self, store: Store) -> None:
        stages = make_stages(store)
        ticket = train_ticket(stages, MASK, 0.5)
        assert ticket.weights == stages.retrain(stages.rewind(0.5), MASK)
        assert ticket.weights != train_ticket(stages, MASK, 1.0).weights
        assert ticket.mask == MASK
        assert list(ticket.metrics) == ["search", "report"]

    def test_evaluations_hold_what_was_measured(self, store: Store) -> None:
        ticket = train_ticket(make_stages(store), MASK, 0.0)
        for split, key in ticket.evaluations.items():
            entry = store.find(key)
            assert entry is not None
            assert entry.read_json(METRICS_FILE) == {"metric": ticket.metrics[split]}

    def test_every_seed_has_trainings_of_its_own(self, store: Store) -> None:
        stages = make_stages(store)
        arms = train_downstream(stages, MASK, 0.0, (3, 4))
        ticket, dense = arms
        assert [one.seed for one in ticket.tickets] == [3, 4]
        keys = {one.weights.key for arm in arms for one in arm.tickets}
        assert len(keys) == 4
        assert dense.tickets[1].weights == at_seed(stages, 4).dense().weights

    def test_nothing_is_trained_for_a_control_that_was_not_asked_for(self, store: Store) -> None:
        stages = make_stages(store)
        train_downstream(stages, MASK, 0.0, (0,))
        assert stages.executor.computed.count("retrain") == 1  # type: ignore[attr-defined]

    def test_arms_in_order(self, store: Store) -> None:
        arms = train_downstream(make_stages(store), MASK, 0.0, (0, 1), tuple(TicketControl))
        assert [arm.name for arm in arms] == [TICKET, *TicketControl, DENSE]
        assert {len(arm.tickets) for arm in arms} == {2}

    def test_again_nothing_is_computed(self, store: Store) -> None:
        once = train_downstream(make_stages(store), MASK, 0.5, (0, 1), tuple(TicketControl))
        stages = make_stages(store)
        assert train_downstream(stages, MASK, 0.5, (0, 1), tuple(TicketControl)) == once
        assert stages.executor.computed == []  # type: ignore[attr-defined]


class TestControls:
    @pytest.mark.parametrize("control", [c for c in TicketControl if c is not TicketControl.DENSE])
    def test_control_is_as_large_as_the_mask(self, control: TicketControl, store: Store) -> None:
        chosen = choose_control(control, MASK, make_stages(store))
        assert chosen is not None
        assert chosen != MASK
        assert [chosen.num_kept(kind) for kind in UnitKind] == [3, 11]

    def test_dense_control_keeps_everything_and_is_trained_alike(self, store: Store) -> None:
        stages = make_stages(store)
        assert choose_control(TicketControl.DENSE, MASK, stages) == WHOLE
        arms = {
            arm.name: arm
            for arm in train_downstream(stages, MASK, 0.5, (0,), (TicketControl.DENSE,))
        }
        start = stages.rewind(0.5)
        assert arms["dense"].tickets[0].weights == stages.retrain(start, WHOLE)
        assert arms[DENSE].tickets[0].weights == stages.dense().weights

    def test_random_control_is_drawn_anew_for_each_seed(self, store: Store) -> None:
        drawn = [
            choose_control(TicketControl.RANDOM, MASK, at_seed(make_stages(store), seed))
            for seed in (0, 1, 0)
        ]
        assert drawn[0] == drawn[2] != drawn[1]

    def test_controls_by_importance_look_at_one_model_each(self, store: Store) -> None:
        masks = {}
        for control in (TicketControl.LAMBDA_0, TicketControl.LAMBDA_1, TicketControl.MAGNITUDE):
            stages = make_stages(store)
            masks[control] = choose_control(control, MASK, stages)
            scores = [r for r in stages.executor.requests if r.stage == "score"]  # type: ignore[attr-defined]
            assert len(scores) == 1
            objectives = [request.settings["objective"] for request in scores]
            assert objectives == ["mlm" if control is TicketControl.LAMBDA_1 else "task"]
            criterion = "magnitude" if control is TicketControl.MAGNITUDE else "abs_gradient"
            assert scores[0].settings["criterion"] == criterion
        assert len(set(masks.values())) == 3

    def test_no_inverted_control_of_a_mask_that_keeps_more_than_half(self, store: Store) -> None:
        said: list[str] = []
        stages = make_stages(store)
        arms = train_downstream(
            stages, keep(6, 30), 0.0, (0,), (TicketControl.INVERTED,), said.append
        )
        assert [arm.name for arm in arms] == [TICKET, DENSE]
        assert any("inverted: cannot be drawn" in line for line in said)


def test_the_most_important_units_are_kept_as_many_of_each_kind() -> None:
    shape = EncoderShape(num_layers=2, num_heads=2, num_neurons=3, hidden_size=4, head_size=2)
    importance = Importance(
        {
            UnitKind.HEAD: np.array([[0.1, 0.2], [0.9, 0.3]]),
            UnitKind.NEURON: np.array([[6.0, 1.0, 5.0], [2.0, 4.0, 3.0]]),
        }
    )
    size = Mask(
        {
            UnitKind.HEAD: np.array([[True, False], [False, False]]),
            UnitKind.NEURON: np.array([[True, True, False], [False, False, True]]),
        }
    )
    chosen = keep_as_many(importance, size, shape)
    assert chosen["head"].tolist() == [[False, False], [True, False]]
    assert chosen["neuron"].tolist() == [[True, False, True], [False, True, False]]


class TestRetention:
    """On the report split: 0 = the constant predictor (0.5), 1 = the dense model of the seed."""

    def make(self, store: Store, dense: list[float], metrics: list[float]) -> Arm:
        def ticket(seed: int, metric: float) -> TrainedTicket:
            weights = WeightsReference("a" * 64, "weights.safetensors")
            return TrainedTicket(seed, MASK.pack(), weights, {"search": 0.0, "report": metric}, {})

        references = {seed: ticket(seed, metric) for seed, metric in enumerate(dense)}
        tickets = [ticket(seed, metric) for seed, metric in enumerate(metrics)]
        return make_arm(make_stages(store), "ticket", tickets, references)

    def test_against_the_dense_model_of_the_same_seed(self, store: Store) -> None:
        arm = self.make(store, dense=[0.9, 0.7], metrics=[0.8, 0.6])
        assert arm.retentions == pytest.approx((0.75, 0.5))
        assert arm.metrics("report") == [0.8, 0.6]

    def test_none_where_a_dense_model_is_no_better_than_a_constant(self, store: Store) -> None:
        assert self.make(store, dense=[0.9, 0.5], metrics=[0.8, 0.6]).retentions == ()

    def test_cost_is_that_of_the_mask(self, store: Store) -> None:
        cost = self.make(store, dense=[0.9], metrics=[0.8]).cost
        # 6 x 24 of norms and output biases a layer; a head 4 x 24 x 6 + 3 x 6; a neuron 2 x 24 + 1
        assert cost.parameters == 2 * 144 + 3 * 594 + 11 * 49
        assert cost.num_tokens == 8.5


class TestChecks:
    def test_mask_of_other_counts(self) -> None:
        other = Mask.dense(replace(SHAPE, num_layers=3, num_neurons=8))
        with pytest.raises(MaskError) as caught:
            check_mask(other, CHECKPOINT)
        text = str(caught.value)
        assert "was made for 3 layers of 4 heads and 8 neurons" in text
        assert "'tiny' has 2 layers of 4 heads and 20 neurons" in text
        assert "\n" not in text

    def test_mask_of_the_same_counts(self) -> None:
        check_mask(MASK, CHECKPOINT)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [("continue", 1.0), ("0", 0.0), (0.5, 0.5), ("1.0", 1.0), (1, 1.0)],
    )
    def test_rewinding_point(self, value: object, expected: float) -> None:
        assert parse_rewinding(value) == expected

    @pytest.mark.parametrize("value", ["begin", "-0.1", 1.5, None, "nan", [0.5]])
    def test_what_is_no_rewinding_point(self, value: object) -> None:
        with pytest.raises(ConfigError, match=r"--rewinding: .* must be from 0 .* to 1"):
            parse_rewinding(value)

    @pytest.mark.parametrize(
        ("metadata", "expected"),
        [
            ({}, 0.0),
            ({"parameters": {}}, 0.0),
            ({"parameters": "none"}, 0.0),
            ({"rewinding": 0.5}, 0.5),
            ({"rewinding": "continue"}, 1.0),
        ],
    )
    def test_rewinding_that_a_mask_was_found_with(
        self, metadata: Mapping[str, Any], expected: float
    ) -> None:
        assert find_rewinding(MASK.with_metadata(metadata)) == expected

    def test_rewinding_that_a_mask_makes_up(self) -> None:
        mask = MASK.with_metadata({"rewinding": {"at": 7}})
        with pytest.raises(ConfigError, match="in the mask's metadata"):
            find_rewinding(mask)

    @pytest.mark.parametrize(
        ("metadata", "expected"),
        [
            ({"checkpoint": {"name": "demo:minilm"}}, "demo:minilm"),
            ({"checkpoint": "tiny"}, "tiny"),
            ({"checkpoint": {"name": 3}}, None),
            ({}, None),
        ],
    )
    def test_checkpoint_that_a_mask_was_found_on(
        self, metadata: Mapping[str, Any], expected: str | None
    ) -> None:
        assert find_checkpoint(MASK.with_metadata(metadata)) == expected


class VaryingExecutor(CannedExecutor):
    """Metrics that rise with the number of evaluations before."""

    def _writer(self, request: StageRequest) -> Callable[[Path], None]:
        if request.stage != "evaluate":
            return super()._writer(request)
        metric = 0.5 + 0.01 * self.computed.count("evaluate")
        return lambda folder: (folder / METRICS_FILE).write_text(json.dumps({"metric": metric}))


def test_metrics_are_not_mixed_up(store: Store) -> None:
    spec = make_stages(store).spec
    stages = TrialStages(spec, CONTEXT, store, VaryingExecutor(store))
    said: list[str] = []
    ticket, dense = train_downstream(stages, MASK, 0.0, (0,), (), said.append)
    # Evaluated first: the dense model on search, report; then the ticket.
    assert dense.tickets[0].metrics == pytest.approx({"search": 0.51, "report": 0.52})
    assert ticket.tickets[0].metrics == pytest.approx({"search": 0.53, "report": 0.54})
    assert said == ["seed 0: ticket 0.5400 on report", "seed 0: dense fine-tuned 0.5200 on report"]


@pytest.mark.filterwarnings("ignore")
class TestRealTrainings:
    def test_what_a_trial_has_trained_is_not_trained_again(self, study: TinyStudy) -> None:
        stages = study.make_stages()
        *_, last = run_trial(stages)
        computed = stages.executor.computed  # type: ignore[attr-defined]
        computed.clear()
        ticket = train_ticket(stages, last.mask, 0.0)
        assert ticket.weights.key == last.lineage.weights
        assert ticket.metrics["search"] == last.metric
        assert computed == ["evaluate"]

    def test_ticket_on_another_task_learns(
        self, study: TinyStudy, degree_task: Path, tmp_path: Path
    ) -> None:
        """A mask goes from a classification to a regression task of the same checkpoint."""
        task = {"dataset": str(degree_task), "max_length": 16}
        stages = study.make_stages(task=task, fine_tuning=LEARNING)
        arms = train_downstream(stages, keep(6, 30), 0.0, (0,), (TicketControl.RANDOM,))
        assert [arm.name for arm in arms] == [TICKET, "random", DENSE]
        assert arms[0].tickets[0].metrics["report"] > 0.5
        assert arms[-1].retentions == (1.0,)
