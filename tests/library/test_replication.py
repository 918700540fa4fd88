"""Replicates: fresh seeds, the trial's own way of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.mask import Mask
from distprune.library.replication import (
    choose_seeds,
    choose_starting_point,
    describe_training,
    measure_mask,
    seed_stages,
    train_mask,
)
from distprune.methods.spec import PruningSpec
from distprune.store.store import Store
from distprune.trial.stages import TrialStages
from tests.tiny_study import SHAPE
from tests.trial.canned import computed, make_pruning, make_stages
from tests.trial.studies import keep

MASK = keep(4, 20)


@given(st.integers(0, 12), st.integers(1, 10))
def test_seeds_are_fresh(study_seed: int, count: int) -> None:
    seeds = choose_seeds(study_seed, count)
    assert len(set(seeds)) == len(seeds) == count
    assert study_seed not in seeds
    assert min(seeds) >= 1
    assert list(seeds) == sorted(seeds)


def test_seeds_begin_with_one() -> None:
    assert choose_seeds(0, 5) == (1, 2, 3, 4, 5)
    assert choose_seeds(3, 5) == (1, 2, 4, 5, 6)


@pytest.mark.parametrize(
    ("rewinding", "retraining", "point", "words"),
    [
        (0.0, "every_level", 0.0, "from the pre-trained weights"),
        (1.0, "last_level", 1.0, "from the dense fine-tuned weights"),
        (0.5, "every_level", 0.5, "from 0.5 of the dense fine-tuning"),
        ("continue", "every_level", 1.0, "here all arms start from 1.0"),
        (0.0, "never", 0.0, "not trained again"),
    ],
)
def test_starting_point(rewinding: Any, retraining: str, point: float, words: str) -> None:
    spec = PruningSpec(rewinding=rewinding, retraining=retraining)  # type: ignore[arg-type]
    assert choose_starting_point(spec) == point
    assert words in describe_training(spec)


def make(tmp_path: Path, **pruning: Any) -> TrialStages:
    return make_stages(Store(str(tmp_path)), pruning=make_pruning(**pruning))


def find_requests(stages: TrialStages, stage: str) -> list[Any]:
    requests = stages.executor.requests  # type: ignore[attr-defined]
    return [request for request in requests if request.stage == stage]


def test_mask_is_trained_once_from_its_point_and_measured_on_report(tmp_path: Path) -> None:
    stages = make(tmp_path, rewinding=0.5)
    evaluation = measure_mask(stages, MASK)
    assert computed(stages) == ["dense", "snapshot", "retrain", "evaluate"]
    (retrain,) = find_requests(stages, "retrain")
    (snapshot,) = find_requests(stages, "snapshot")
    (evaluate,) = find_requests(stages, "evaluate")
    assert retrain.inputs["start"] == snapshot.key
    assert snapshot.settings["point"] == 0.5
    assert (evaluate.settings["split"], evaluate.key) == ("report", evaluation.key)
    assert evaluate.inputs["weights"] == retrain.key


def test_trial_that_continues_starts_from_the_dense_weights(tmp_path: Path) -> None:
    stages = make(tmp_path, rewinding="continue")
    train_mask(stages, MASK)
    (retrain,), (dense,) = (find_requests(stages, name) for name in ("retrain", "dense"))
    assert retrain.inputs["start"] == dense.key


@pytest.mark.parametrize("mask", [MASK, Mask.dense(SHAPE)])
def test_what_is_not_trained_again(mask: Mask, tmp_path: Path) -> None:
    retraining = "never" if mask == MASK else "every_level"
    stages = make(tmp_path, retraining=retraining)
    measure_mask(stages, mask)
    assert computed(stages) == ["dense", "evaluate"]


def test_each_seed_has_a_dense_run_of_its_own(tmp_path: Path) -> None:
    stages = make(tmp_path, rewinding=0.0)
    keys = []
    for seed in (1, 2, 1):
        replicate = seed_stages(stages, stages.spec, seed)
        assert replicate.spec.seed == seed
        keys.append(measure_mask(replicate, MASK).key)
    assert keys[0] == keys[2] != keys[1]
    assert computed(stages).count("dense") == 2
    assert computed(stages).count("retrain") == 2
