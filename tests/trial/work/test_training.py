"""Training by recipe: steps, frozen parts, distillation, arithmetic."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from distprune.core.compaction import compact
from distprune.errors import DivergedTrialError
from distprune.methods.spec import Recipe
from distprune.models.checkpoint import load_classifier
from distprune.tasks.prepared import PreparedTask
from distprune.trial.work.training import _distance, count_steps, train
from tests.trial.studies import QUICK, TinyStudy, keep


@pytest.fixture(scope="module")
def task(study: TinyStudy) -> PreparedTask:
    return open_task(study)


@pytest.fixture(scope="module")
def degrees(degree_study: TinyStudy) -> PreparedTask:
    return open_task(degree_study)


def open_task(study: TinyStudy) -> PreparedTask:
    entry = study.store.find(study.resolve(study.make_spec()).prepared)
    assert entry is not None
    return PreparedTask.open(entry.path("facts.json").parent)


def load(study: TinyStudy, num_labels: int = 2) -> Any:
    return load_classifier(str(study.checkpoint), num_labels, seed=0)[0]


def run(model: Any, study: TinyStudy, task: PreparedTask, **settings: Any) -> Any:
    """Train a model for a few steps and return it."""
    teacher = settings.pop("teacher", None)
    precision = settings.pop("precision", "float32")
    recipe = Recipe.model_validate(QUICK | {"steps": 3} | settings)
    train(model, task, recipe, str(study.checkpoint), 0, precision, teacher)
    return model


def changed(model: nn.Module, before: nn.Module) -> set[str]:
    start = before.state_dict()
    return {name for name, value in model.state_dict().items() if not value.equal(start[name])}


@pytest.mark.parametrize(
    ("settings", "num_examples", "steps"),
    [
        ({"epochs": 3.0, "batch_size": 16}, 120, 24),
        ({"epochs": 1.0, "batch_size": 16}, 128, 8),
        ({"epochs": 0.5, "batch_size": 16}, 120, 4),
        ({"epochs": 0.01, "batch_size": 16}, 120, 1),
        ({"epochs": 0.07, "batch_size": 1}, 100, 7),
        ({"epochs": 1.1, "batch_size": 10}, 100, 11),
        ({"epochs": 3.0, "batch_size": 1000}, 120, 3),
        ({"epochs": 3.0, "steps": 5}, 120, 5),
    ],
)
def test_steps_of_a_recipe(settings: dict[str, Any], num_examples: int, steps: int) -> None:
    assert count_steps(Recipe.model_validate(settings), num_examples) == steps


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({"steps": 3, "epochs": 9.0}, 3), ({"steps": None, "epochs": 0.5}, 4)],
)
def test_a_training_takes_the_steps_of_its_recipe(
    study: TinyStudy, task: PreparedTask, settings: dict[str, Any], steps: int
) -> None:
    model = load(study)
    sizes: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output.logits)))
    run(model, study, task, **settings)
    assert sizes == [16] * steps


def test_a_training_changes_everything_and_gives_it_back_trainable(
    study: TinyStudy, task: PreparedTask, capfd: pytest.CaptureFixture[str]
) -> None:
    before = load(study)
    model = run(load(study), study, task)
    moved = {name.split(".")[0] for name in changed(model, before)}
    assert moved == {"bert", "classifier"}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("freeze", "still", "moving"),
    [
        (["embeddings"], ["bert.embeddings."], ["bert.encoder.", "bert.pooler.", "classifier."]),
        (["encoder"], ["bert.encoder."], ["bert.embeddings.", "bert.pooler.", "classifier."]),
        (
            ["embeddings", "encoder"],
            ["bert.embeddings.", "bert.encoder."],
            ["bert.pooler.", "classifier."],
        ),
    ],
)
def test_frozen_parts_keep_every_bit(
    study: TinyStudy, task: PreparedTask, freeze: list[str], still: list[str], moving: list[str]
) -> None:
    before = load(study)
    # Weight decay too must leave them alone.
    model = run(load(study), study, task, freeze=freeze, weight_decay=0.5)
    names = changed(model, before)
    assert not [name for name in names if name.startswith(tuple(still))]
    for part in moving:
        assert any(name.startswith(part) for name in names), part
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_compact_model_is_frozen_and_trained_too(study: TinyStudy, task: PreparedTask) -> None:
    mask = keep(3, 11)
    before = compact(load(study), mask)
    model = run(copy.deepcopy(before), study, task, freeze=["embeddings"])
    names = changed(model, before)
    assert not [name for name in names if "embeddings" in name]
    assert any("encoder" in name for name in names)


def test_the_seed_decides_order_and_dropout(study: TinyStudy, task: PreparedTask) -> None:
    recipe = Recipe.model_validate(QUICK | {"steps": 2})
    models, orders = [load(study) for _ in range(3)], []
    for model, seed in zip(models, (1, 1, 2), strict=True):
        order: list[Any] = []
        model.register_forward_pre_hook(
            lambda module, inputs, named, order=order: order.append(named["input_ids"].tolist()),
            with_kwargs=True,
        )
        train(model, task, recipe, str(study.checkpoint), seed, "float32")
        orders.append(order)
    assert orders[0] == orders[1] != orders[2]
    assert not changed(models[0], models[1])
    assert changed(models[0], models[2])


def test_distillation_changes_the_result(study: TinyStudy, task: PreparedTask) -> None:
    teacher = run(load(study), study, task, steps=8)
    reference = copy.deepcopy(teacher)
    plain = run(load(study), study, task)
    taught = run(load(study), study, task, distillation={"weight": 0.5}, teacher=teacher)
    cold = run(
        load(study), study, task, distillation={"weight": 0.5, "temperature": 1.0}, teacher=teacher
    )
    assert changed(taught, plain)
    assert changed(taught, cold)
    assert not changed(teacher, reference)


def test_with_full_weight_only_the_teacher_is_heard(
    study: TinyStudy, task: PreparedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = run(load(study), study, task, steps=8)
    whole = {"distillation": {"weight": 1.0}, "teacher": teacher}
    expected = run(load(study), study, task, **whole)
    rows = task.split("train")
    opposite = [1 - label for label in rows["labels"]]
    flipped = rows.remove_columns("labels").add_column("labels", opposite)
    monkeypatch.setattr(PreparedTask, "split", lambda self, name: flipped)
    assert not changed(run(load(study), study, task, **whole), expected)
    assert changed(run(load(study), study, task), run(load(study), study, task, **whole))


def test_a_student_of_numbers_has_a_teacher_of_numbers(
    degree_study: TinyStudy, degrees: PreparedTask
) -> None:
    plain = run(load(degree_study, 1), degree_study, degrees)
    teacher = copy.deepcopy(plain)
    taught = run(
        load(degree_study, 1), degree_study, degrees, distillation={"weight": 0.5}, teacher=teacher
    )
    assert changed(taught, plain)


def test_distillation_needs_a_teacher(study: TinyStudy, task: PreparedTask) -> None:
    with pytest.raises(ValueError, match="teacher"):
        run(load(study), study, task, distillation={"weight": 0.5})


def test_the_distance_to_a_teacher() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = (torch.randn(5, 3, generator=generator) for _ in range(2))
    soft, softer = ((x / 2.0).softmax(-1) for x in (targets, logits))
    expected = 4.0 * (soft * (soft / softer).log()).sum(-1).mean()
    torch.testing.assert_close(_distance(logits, targets, 2.0), expected)
    assert _distance(targets, targets, 2.0).abs() < 1e-6
    numbers = _distance(logits[:, :1], targets[:, :1], 2.0)
    torch.testing.assert_close(numbers, (logits - targets)[:, 0].square().mean())


def test_weights_that_are_not_finite_end_the_trial(study: TinyStudy, task: PreparedTask) -> None:
    model = load(study)
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(DivergedTrialError, match="lower the learning rate"):
        run(model, study, task, steps=1)


def test_precision_is_that_of_the_arithmetic_only(study: TinyStudy, task: PreparedTask) -> None:
    exact = run(load(study), study, task)
    fast = run(load(study), study, task, precision="bfloat16")
    assert changed(fast, exact)
    assert {parameter.dtype for parameter in fast.parameters()} == {torch.float32}


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_every_schedule_trains(study: TinyStudy, task: PreparedTask, schedule: str) -> None:
    assert changed(run(load(study), study, task, schedule=schedule, warmup=0.5), load(study))
