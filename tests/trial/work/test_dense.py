"""Rewinding points: what is saved on the way is what was there, and stays so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distprune.methods.spec import Recipe
from distprune.methods.ticket import WeightsReference
from distprune.models.checkpoint import load_classifier
from distprune.store.store import Store
from distprune.tasks.prepared import PreparedTask
from distprune.trial.stages import TrialStages
from distprune.trial.work.training import train
from distprune.trial.work.weights import load_model
from tests.trial.studies import QUICK, TinyStudy, hash_file, keep, weights_path

POINTS = (0.0, 0.25, 0.5, 1.0)


@pytest.fixture(scope="module")
def stages(study: TinyStudy) -> TrialStages:
    wide = TinyStudy(study.checkpoint, study.dataset, study.store, rewinding_points=POINTS)
    return wide.make_stages(seed=5)


def load(stages: TrialStages, weights: WeightsReference) -> dict[str, torch.Tensor]:
    path = weights_path(stages.store, weights)
    state: dict[str, torch.Tensor] = load_model(
        path, stages.context.checkpoint.location, 2, mask=None
    ).state_dict()
    return state


def assert_equal(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert state.keys() == expected.keys()
    for name in expected:
        assert torch.equal(state[name], expected[name]), name


def test_the_first_snapshot_is_the_checkpoint_with_its_seeded_head(stages: TrialStages) -> None:
    fresh, missing = load_classifier(stages.spec.checkpoint, 2, seed=5)
    assert_equal(load(stages, stages.rewind(0.0)), fresh.state_dict())
    other, _ = load_classifier(stages.spec.checkpoint, 2, seed=6)
    assert not torch.equal(fresh.classifier.weight, other.classifier.weight)
    # What the checkpoint holds is not stored again.
    stored = load_file(weights_path(stages.store, stages.rewind(0.0)))
    assert set(stored) == missing


def test_every_point_has_its_own_snapshot_from_one_run(study: TinyStudy, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    alone = TinyStudy(study.checkpoint, study.dataset, store, rewinding_points=POINTS)
    stages = alone.make_stages(seed=5)
    paths = [weights_path(store, stages.rewind(point)) for point in POINTS]
    assert len({hash_file(path) for path in paths}) == len(POINTS)
    assert stages.executor.computed.count("dense") == 1  # type: ignore[attr-defined]
    assert "snapshot" not in stages.executor.computed  # type: ignore[attr-defined]


def test_a_point_that_was_not_asked_for_is_as_if_it_had_been(
    stages: TrialStages, study: TinyStudy, tmp_path: Path
) -> None:
    other = TinyStudy(study.checkpoint, study.dataset, Store(str(tmp_path)), rewinding_points=())
    late = other.make_stages(seed=5)
    for point in (1.0, 0.5, 0.25):
        assert late.rewind(point) == stages.rewind(point)
        assert_equal(load(late, late.rewind(point)), load(stages, stages.rewind(point)))
    assert late.executor.computed.count("snapshot") == 2  # type: ignore[attr-defined]


def test_training_from_a_snapshot_leaves_it_as_it_was(stages: TrialStages) -> None:
    before = {point: load(stages, stages.rewind(point)) for point in POINTS}
    paths = [weights_path(stages.store, stages.rewind(point)) for point in POINTS]
    hashes = [hash_file(path) for path in paths]
    for point in (0.0, 0.5):
        retrained = stages.retrain(stages.rewind(point), keep(8, 40))
        assert not torch.equal(
            load(stages, retrained)["classifier.weight"], before[point]["classifier.weight"]
        )
    assert [hash_file(path) for path in paths] == hashes
    for point in POINTS:
        assert_equal(load(stages, stages.rewind(point)), before[point])


@pytest.fixture(scope="module")
def task(stages: TrialStages) -> PreparedTask:
    entry = stages.store.find(stages.context.prepared)
    assert entry is not None
    return PreparedTask.open(entry.path("facts.json").parent)


def run_recipe(
    checkpoint: Path, task: PreparedTask, steps: int, points: tuple[float, ...] = ()
) -> tuple[dict[str, torch.Tensor], dict[float, dict[str, torch.Tensor]]]:
    """Train at a constant rate; return the last weights and those at `points`."""
    recipe = Recipe.model_validate(QUICK | {"steps": steps, "schedule": "constant", "warmup": 0.0})
    model, _ = load_classifier(str(checkpoint), 2, seed=0)
    saved: dict[float, dict[str, torch.Tensor]] = {}

    def save(point: float, live: Any) -> None:
        saved[point] = {name: value.clone() for name, value in live.state_dict().items()}

    train(model, task, recipe, str(checkpoint), 1, "float32", None, points, save)
    return model.state_dict(), saved


def test_a_snapshot_is_the_training_stopped_there(study: TinyStudy, task: PreparedTask) -> None:
    half, _ = run_recipe(study.checkpoint, task, steps=5)
    whole, saved = run_recipe(study.checkpoint, task, steps=10, points=(0.0, 0.5))
    assert_equal(saved[0.5], half)
    assert not torch.equal(whole["classifier.weight"], half["classifier.weight"])


def test_snapshots_do_not_disturb_the_training(study: TinyStudy, task: PreparedTask) -> None:
    plain, _ = run_recipe(study.checkpoint, task, steps=4)
    watched, saved = run_recipe(study.checkpoint, task, steps=4, points=(0.0, 0.1, 0.5, 0.9))
    assert_equal(watched, plain)
    # Tenths of four steps are rounded to the nearest step; several points may share one.
    assert sorted(saved) == [0.0, 0.1, 0.5, 0.9]
    assert_equal(saved[0.1], saved[0.0])
    assert_equal(saved[0.9], plain)
