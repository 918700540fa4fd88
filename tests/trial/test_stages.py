"""From settings to requests: what each stage is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distprune.core.mask import Mask
from distprune.core.units import EncoderShape
from distprune.errors import CheckpointError, DivergedTrialError, StageError
from distprune.methods.spec import PretrainedObjective
from distprune.methods.ticket import WeightsReference
from distprune.store.store import Store
from distprune.trial.request import StageRequest
from distprune.trial.runner import run_trial
from distprune.trial.stages import WEIGHTS_FILE, resolve_objective
from tests.trial.canned import (
    CHECKPOINT,
    CONTEXT,
    DENSE,
    computed,
    last_request,
    make_pruning,
    make_stages,
)
from tests.trial.studies import CannedExecutor, keep

# All values are written out, so that another default changes no key here.
RECIPE = {
    "epochs": 3.0,
    "steps": None,
    "learning_rate": 5e-5,
    "schedule": "linear",
    "warmup": 0.1,
    "weight_decay": 0.01,
    "batch_size": 32,
    "gradient_clip": 1.0,
    "freeze": [],
    "distillation": {"weight": 0.0, "temperature": 2.0},
}
IMPORTANCE = {
    "criterion": "abs_gradient",
    "estimator": "example",
    "normalisation": "l2",
    "examples": 512,
    "batch_size": 32,
    "pretrained_objective": "mlm",
    "pretrained_mask": "coupled",
    "mlm_probability": 0.15,
    "mlm_draws": 2,
}
PINNED_DENSE = "678d418bf92c27471d4b65dc57388c3721fc341302905eba41376e02aabe3224"
PINNED_SCORE = "165c01eba335b508907b16c40c8fafa1d3c02775a37dee411ef5d13c0d233ea1"
"""Keys of a fixed trial's stages; if these change, no stored result is found again."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_keys_of_a_fixed_trial_never_change(store: Store) -> None:
    stages = make_stages(store, fine_tuning=RECIPE, pruning={"importance": IMPORTANCE}, seed=7)
    assert stages.dense().weights.key == PINNED_DENSE
    assert stages.score_pretrained(DENSE).key == PINNED_SCORE


def test_rewinding_names_a_snapshot_of_the_dense_run(store: Store) -> None:
    stages = make_stages(store)
    dense = stages.dense()
    assert dense.level == 0
    assert dense.mask == DENSE
    assert last_request(stages).places["rewinding_points"] == (0.0, 0.5, 1.0)
    assert stages.rewind(1.0) == dense.weights == WeightsReference(dense.weights.key, WEIGHTS_FILE)
    assert computed(stages) == ["dense"]
    half = stages.rewind(0.5)
    request = last_request(stages)
    assert (half.key, request.stage) == (request.key, "snapshot")
    assert request.settings["point"] == 0.5
    assert request.inputs["dense"] == dense.weights.key


def test_rewinding_points_of_the_study_decide_no_key(store: Store) -> None:
    stages = make_stages(store)
    other = replace(stages, context=replace(stages.context, rewinding_points=(0.1,)))
    for point in (0.0, 0.5, 1.0):
        assert stages.rewind(point) == other.rewind(point)


def test_a_retraining_request_holds_all_that_decides_it(store: Store) -> None:
    stages = make_stages(store, retraining={"distillation": {"weight": 0.5}})
    start, mask = stages.rewind(0.5), keep(4, 20)
    stages.retrain(start, mask)
    request = last_request(stages)
    assert set(request.inputs) == {"task", "start", "teacher"}
    assert request.inputs["teacher"] == stages.dense().weights.key
    assert request.inputs["start"] == start.key
    assert request.settings["teacher_file"] == request.settings["start_file"] == WEIGHTS_FILE
    assert Mask.unpack(request.settings["mask"]) == mask
    assert request.settings["recipe"] == stages.spec.retraining.model_dump(mode="json")


def test_without_distillation_there_is_no_teacher(store: Store) -> None:
    stages = make_stages(store)
    stages.retrain(stages.rewind(0.0), DENSE)
    assert "teacher" not in last_request(stages).inputs
    assert "teacher_file" not in last_request(stages).settings


@pytest.mark.parametrize(
    ("objective", "names", "inputs"),
    [
        ("auto", "mlm", {"task"}),
        ("mlm", "mlm", {"task"}),
        ("task_probe", "task", {"task", "weights"}),
        ("task_head", "task", {"task", "weights", "head"}),
    ],
)
def test_objectives_of_the_pretrained_score(
    store: Store, objective: str, names: str, inputs: set[str]
) -> None:
    pruning = make_pruning(importance={"pretrained_objective": objective})
    stages = make_stages(store, pruning=pruning)
    stages.score_pretrained(DENSE)
    request = last_request(stages)
    assert request.settings["objective"] == names
    assert set(request.inputs) == inputs
    assert ("mlm_draws" in request.settings) == (names == "mlm")
    if objective == "task_head":
        assert request.inputs["weights"] == stages.rewind(0.0).key
        assert request.inputs["head"] == stages.dense().weights.key
    if objective == "task_probe":
        assert computed(stages)[-2:] == ["probe", "score"]


@pytest.mark.parametrize(
    ("criterion", "present", "absent"),
    [
        ("abs_gradient", {"estimator", "examples", "batch_size", "seed"}, set()),
        ("magnitude", set(), {"estimator", "examples", "batch_size", "seed"}),
        ("random", {"seed"}, {"estimator", "examples", "batch_size"}),
    ],
)
def test_a_score_is_keyed_by_what_it_depends_on(
    store: Store, criterion: str, present: set[str], absent: set[str]
) -> None:
    stages = make_stages(store, pruning=make_pruning(importance={"criterion": criterion}))
    stages.score_finetuned(stages.dense())
    names = set(last_request(stages).settings)
    assert present <= names
    assert not absent & names


def test_a_magnitude_needs_no_objective(store: Store) -> None:
    bare = replace(CONTEXT, checkpoint=replace(CHECKPOINT, has_mlm_head=False))
    importance = {"criterion": "magnitude", "pretrained_objective": "mlm"}
    stages = make_stages(store, bare, pruning=make_pruning(importance=importance))
    results = list(run_trial(stages))
    assert results[1].lineage.evidence.pretrained_objective is None
    assert results[1].lineage.evidence.pretrained_key is not None


@pytest.mark.parametrize("metric", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_ends_the_trial(store: Store, metric: float) -> None:
    stages = make_stages(store)
    stages = replace(stages, executor=CannedExecutor(store, metric))
    with pytest.raises(DivergedTrialError, match="search metric"):
        next(run_trial(stages))


def test_the_report_split_is_evaluated_on_demand(store: Store) -> None:
    stages = make_stages(store)
    ticket = stages.dense()
    evaluations = [stages.evaluate(ticket, split) for split in ("search", "report", "search")]
    assert computed(stages) == ["dense", "evaluate", "evaluate"]
    assert evaluations[0] == evaluations[2]
    assert evaluations[0].key != evaluations[1].key


class ForgetfulExecutor:
    """Says that a stage is done, and stores nothing here."""

    def ensure(self, request: StageRequest) -> None:
        pass


def test_a_storage_that_is_not_shared_is_named(store: Store) -> None:
    stages = replace(make_stages(store), executor=ForgetfulExecutor())
    with pytest.raises(StageError, match="check that all nodes share this storage"):
        stages.dense()


def test_objectives_resolve_by_what_the_checkpoint_brings() -> None:
    bare = replace(CHECKPOINT, has_mlm_head=False)
    auto, mlm, probe = (PretrainedObjective(name) for name in ("auto", "mlm", "task_probe"))
    assert resolve_objective(auto, CHECKPOINT) is mlm
    assert resolve_objective(auto, bare) is probe
    assert resolve_objective(probe, CHECKPOINT) is probe
    with pytest.raises(
        CheckpointError, match=r"'mlm' needs the checkpoint's own MLM head"
    ) as caught:
        resolve_objective(mlm, bare)
    assert "use 'task_probe'" in str(caught.value)


def test_the_context_knows_shape_and_length() -> None:
    assert CONTEXT.shape == EncoderShape(2, 4, 20, 24, 6)
    assert CONTEXT.num_tokens == 8.5
