"""Before anything is trained: facts, and what cannot work."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distprune.core.mask import Mask
from distprune.core.retention import Reference
from distprune.errors import CheckpointError, ConfigError, DatasetError, StudyFailedError
from distprune.methods.spec import PruningSpec
from distprune.models.checkpoint import load_classifier, load_tokenizer
from distprune.trial import resolve
from distprune.trial.context import TrialContext
from distprune.trial.resolve import (
    check_pruning,
    measure_reference,
    resolve_context,
    resolve_precision,
)
from distprune.trial.spec import Precision
from distprune.trial.stages import TrialStages
from tests.tiny_study import SHAPE
from tests.trial.studies import CannedExecutor, TinyStudy


@pytest.fixture(scope="module")
def context(study: TinyStudy) -> TrialContext:
    return study.resolve(study.make_spec())


@pytest.fixture(scope="module")
def bare_context(body_study: TinyStudy) -> TrialContext:
    return body_study.resolve(body_study.make_spec())


def check(context: TrialContext, **settings: Any) -> None:
    check_pruning(PruningSpec.model_validate(settings), context)


def test_facts_are_found(study: TinyStudy, context: TrialContext) -> None:
    assert context.shape == SHAPE
    assert context.checkpoint.has_mlm_head
    assert context.checkpoint.location == str(study.checkpoint)
    assert context.task.label_names == ("bad", "good")
    assert context.task.counts == {"train": 120, "search": 40, "report": 40}
    assert context.num_tokens == context.task.mean_tokens["search"]
    assert context.precision == "float32"


@pytest.mark.parametrize(
    ("points", "resolved"),
    [([], (0.0, 1.0)), ([0.5, 0.1, 0.5], (0.0, 0.1, 0.5, 1.0)), ([0, 1], (0.0, 1.0))],
)
def test_both_ends_are_rewinding_points(
    study: TinyStudy, points: list[float], resolved: tuple[float, ...]
) -> None:
    context = resolve_context(study.make_spec(), study.store, points, uses_gpu=False)
    assert context.rewinding_points == resolved


def test_the_same_files_elsewhere_are_the_same_study(study: TinyStudy, tmp_path: Path) -> None:
    shutil.copytree(study.checkpoint, tmp_path / "checkpoint")
    shutil.copy(study.dataset, tmp_path / "data.csv")
    moved = TinyStudy(tmp_path / "checkpoint", tmp_path / "data.csv", study.store)
    here, there = study.make_stages(), moved.make_stages()
    assert here.context.prepared == there.context.prepared
    assert here.dense().weights == there.dense().weights
    assert there.executor.computed == []  # type: ignore[attr-defined]


def test_another_task_or_checkpoint_is_another_study(
    study: TinyStudy, body_study: TinyStudy, context: TrialContext
) -> None:
    shorter = study.make_spec(task={"dataset": str(study.dataset), "max_length": 12})
    assert study.resolve(shorter).prepared != context.prepared
    assert body_study.resolve(body_study.make_spec()).prepared != context.prepared


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"dataset": "/nowhere/data.csv"}, "there is no such file"),
        ({"text": "sentence"}, "has no column 'sentence'"),
    ],
)
def test_bad_data_is_refused_before_training(
    study: TinyStudy, task: dict[str, Any], message: str
) -> None:
    spec = study.make_spec(task={"dataset": str(study.dataset), "max_length": 16} | task)
    with pytest.raises(DatasetError, match=message):
        study.resolve(spec)


def test_a_bad_checkpoint_is_refused_before_training(study: TinyStudy) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        study.resolve(study.make_spec(checkpoint="/nowhere"))


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": {"levels": 4}},
        {"schedule": {"levels": 1000, "shape": "one_shot"}},
        {"schedule": {"levels": 4}, "selection": {"min_heads_per_layer": 2}},
        {"units": ["neuron"], "schedule": {"levels": 20}},
        {"selection": {"allocation": "joint_parameters"}, "schedule": {"levels": 20}},
    ],
)
def test_what_the_model_can_give_is_accepted(
    context: TrialContext, settings: dict[str, Any]
) -> None:
    check(context, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"schedule": {"levels": 5}, "units": ["head"]},
            r"pruning.schedule.levels: 5; each level removes a unit at least, and linear to "
            r"sparsity 0.5 removes none of 8 heads at level \d; use fewer levels",
        ),
        (
            {"schedule": {"levels": 4, "shape": "cubic"}, "units": ["head"]},
            r"pruning.schedule.levels: 4; .* cubic to sparsity 0.5 removes none of 8 heads at",
        ),
        (
            {"schedule": {"levels": 300}},
            r"levels: 300; .* removes none of 8 heads and \d+ neurons at level",
        ),
        (
            {"selection": {"min_heads_per_layer": 3}, "schedule": {"levels": 1}},
            r"pruning.selection.min_heads_per_layer: 3 in 2 layers cannot be kept",
        ),
        (
            {"selection": {"min_neurons_per_layer": 11}, "schedule": {"levels": 1}},
            r"pruning.selection.min_neurons_per_layer: 11 in 2 layers cannot be kept",
        ),
        (
            {"selection": {"allocation": "joint_parameters", "min_heads_per_layer": 3}},
            r"min units per layer: .*'head': 3.* leaves too few units",
        ),
    ],
)
def test_what_the_model_cannot_give_is_refused(
    context: TrialContext, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(context, **settings)


def test_joint_floors_are_those_of_all_units_together(context: TrialContext) -> None:
    # Six tenths of the heads cannot go where each layer keeps two of four; neurons make up for it.
    floors = {"min_heads_per_layer": 2}
    with pytest.raises(ConfigError, match="min_heads_per_layer: 2"):
        check(context, target_sparsity=0.6, selection=floors, schedule={"levels": 1})
    check(context, target_sparsity=0.6, selection=floors | {"allocation": "joint_parameters"})


@pytest.mark.parametrize(
    ("settings", "is_refused"),
    [
        ({"importance": {"pretrained_objective": "mlm"}}, True),
        ({"importance": {"pretrained_objective": "auto"}}, False),
        ({"importance": {"pretrained_objective": "task_head"}}, False),
        ({"importance": {"pretrained_objective": "mlm"}, "mixing": {"coefficient": 0.0}}, False),
        ({"importance": {"pretrained_objective": "mlm", "criterion": "magnitude"}}, False),
    ],
)
def test_the_objective_must_fit_where_it_is_used(
    context: TrialContext, bare_context: TrialContext, settings: dict[str, Any], is_refused: bool
) -> None:
    common = {"schedule": {"levels": 2}} | settings
    check(context, **common)
    if is_refused:
        with pytest.raises(CheckpointError, match="needs the checkpoint's own MLM head"):
            check(bare_context, **common)
    else:
        check(bare_context, **common)


def make_canned(study: TinyStudy, folder: Path, metric: float) -> TrialStages:
    """Bind a trial to a store of its own, where every model has the same metric."""
    store = study.at(folder).store
    return replace(study.make_stages(), store=store, executor=CannedExecutor(store, metric))


def test_the_reference_is_the_dense_model(study: TinyStudy, tmp_path: Path) -> None:
    ticket, reference = measure_reference(make_canned(study, tmp_path, 0.9))
    assert ticket.mask == Mask.dense(SHAPE)
    assert reference == Reference(dense=0.9, floor=0.5, higher_is_better=True)


@pytest.mark.parametrize("metric", [0.5, 0.4])
def test_a_useless_dense_model_ends_the_study(
    study: TinyStudy, tmp_path: Path, metric: float
) -> None:
    with pytest.raises(StudyFailedError, match="no better than a constant prediction") as caught:
        measure_reference(make_canned(study, tmp_path, metric))
    assert "fine_tuning.learning_rate" in str(caught.value)


@pytest.mark.parametrize(
    ("precision", "uses_gpu", "flags", "resolved"),
    [
        ("float32", True, "amx_bf16", "float32"),
        ("bfloat16", False, "sse", "bfloat16"),
        ("auto", True, "sse amx_bf16", "float32"),  # the GPU is asked, and there is none
        ("auto", False, "sse amx_bf16", "bfloat16"),
        ("auto", False, "avx512_bf16 sse", "bfloat16"),
        ("auto", False, "avx2 avx512f", "float32"),
        ("auto", False, None, "float32"),
    ],
)
def test_precision(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    uses_gpu: bool,
    flags: str | None,
    resolved: str,
) -> None:
    information = tmp_path / "cpuinfo"
    if flags is not None:
        information.write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(resolve, "Path", lambda name: information)
    assert resolve_precision(Precision(precision), uses_gpu) == resolved


def test_more_tokens_than_positions_are_refused(study: TinyStudy) -> None:
    task = {"dataset": str(study.dataset), "max_length": 16}
    config = json.loads((study.checkpoint / "config.json").read_text())
    task["max_length"] = config["max_position_embeddings"] + 1
    with pytest.raises(ConfigError, match=r"max_length: \d+ tokens, must be at most the \d+ pos"):
        study.resolve(study.make_spec(task=task))


def test_a_head_for_other_labels_is_refused(study: TinyStudy, tmp_path: Path) -> None:
    folder = tmp_path / "three"
    model, _ = load_classifier(str(study.checkpoint), 3, seed=0)
    model.save_pretrained(folder)
    load_tokenizer(str(study.checkpoint)).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="has 3 outputs and the task needs 2; choose"):
        study.resolve(study.make_spec(checkpoint=str(folder)))


def test_a_head_of_another_kind_of_task_does_not_decide_the_loss(
    study: TinyStudy, tmp_path: Path
) -> None:
    model, _ = load_classifier(str(study.checkpoint), 2, seed=0)
    model.config.problem_type = "regression"
    model.save_pretrained(tmp_path)
    again, missing = load_classifier(str(tmp_path), 2, seed=0)
    assert not missing
    assert again.config.problem_type == "single_label_classification"
