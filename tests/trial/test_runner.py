"""A trial from file to masks, in process, on a real if tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from distprune.core.retention import Reference
from distprune.core.selection import num_removed
from distprune.core.units import UnitKind
from distprune.methods.ticket import WeightsReference
from distprune.models.checkpoint import load_classifier
from distprune.store.store import Store
from distprune.trial.reporter import Objective, report_milestones
from distprune.trial.results import LevelResult
from distprune.trial.runner import run_trial
from tests.tiny_study import SHAPE
from tests.trial.canned import computed
from tests.trial.studies import (
    LEARNING,
    TinyStudy,
    forget_models,
    hash_file,
    summarise,
    weights_path,
)

LEARNING_TRIAL: dict[str, Any] = {
    "fine_tuning": LEARNING,
    "pruning": {
        "schedule": {"levels": 2},
        "importance": {"examples": 64},
        "rewinding": 0.5,
    },
}


@pytest.fixture(scope="module")
def levels(study: TinyStudy) -> list[LevelResult]:
    return study.run(**LEARNING_TRIAL)


def test_a_trial_learns_prunes_and_learns_again(levels: list[LevelResult]) -> None:
    assert [level.level for level in levels] == [0, 1, 2]
    assert [level.sparsity for level in levels] == [0.0, 0.25, 0.5]
    assert levels[0].metric > 0.7
    assert levels[2].metric > 0.7
    assert all(level.seconds > 0 for level in levels)


def test_masks_shrink_by_the_exact_count(levels: list[LevelResult]) -> None:
    for before, after in pairwise(levels):
        assert after.mask.is_within(before.mask)
        for kind in UnitKind:
            total = SHAPE.total(kind)
            assert after.mask.num_kept(kind) == total - num_removed(after.sparsity, total)


def test_levels_make_milestones(levels: list[LevelResult]) -> None:
    reference = Reference(dense=levels[0].metric, floor=0.5)
    reports = list(report_milestones(levels, (0.2, 0.5), reference, Objective.TARGET))
    assert [(report.milestone, report.level) for report in reports] == [(1, 1), (2, 2)]


def test_a_trial_that_runs_again_computes_nothing(
    study: TinyStudy, levels: list[LevelResult]
) -> None:
    stages = study.make_stages(**LEARNING_TRIAL)
    again = list(run_trial(stages))
    assert computed(stages) == []
    assert [summarise(level) for level in again] == [summarise(level) for level in levels]


def test_a_deleted_entry_is_computed_again_bit_for_bit(
    study: TinyStudy, levels: list[LevelResult]
) -> None:
    path = weights_path(study.store, weights_of(levels[1]))
    expected = hash_file(path)
    shutil.rmtree(path.parent)
    forget_models()
    stages = study.make_stages(**LEARNING_TRIAL)
    again = list(run_trial(stages))
    assert computed(stages) == ["retrain"]
    assert hash_file(path) == expected
    assert [summarise(level) for level in again] == [summarise(level) for level in levels]


def test_the_same_seed_gives_the_same_bits_in_another_store(
    study: TinyStudy, tmp_path: Path
) -> None:
    first = study.at(tmp_path / "first")
    second = study.at(tmp_path / "second")
    results = first.run()
    forget_models()
    assert [summarise(r) for r in second.run()] == [summarise(r) for r in results]
    for result in results:
        hashes = {hash_file(path) for path in weights_files(result, first.store, second.store)}
        assert len(hashes) == 1


def test_another_seed_begins_with_another_head_and_another_order(study: TinyStudy) -> None:
    heads = [load_classifier(str(study.checkpoint), 2, seed)[0].classifier for seed in (0, 1)]
    assert not heads[0].weight.equal(heads[1].weight)
    stages = [study.make_stages(seed=seed) for seed in (0, 1)]
    starts = [weights_path(study.store, s.rewind(0.0)) for s in stages]
    assert hash_file(starts[0]) != hash_file(starts[1])


def test_who_iterates_may_stop_after_any_level(study: TinyStudy) -> None:
    stages = study.make_stages(seed=2)
    levels = run_trial(stages)
    next(levels)
    assert computed(stages) == ["dense", "evaluate"]
    next(levels)
    assert computed(stages)[2:] == ["score", "score", "retrain", "evaluate"]


@pytest.mark.parametrize(
    ("pruning", "trained"),
    [
        ({"retraining": "never"}, []),
        ({"retraining": "last_level", "rewinding": 0.0}, ["retrain"]),
        ({"retraining": "every_level", "rewinding": "continue"}, ["retrain", "retrain"]),
    ],
)
def test_the_methods_of_the_thesis_are_settings(
    study: TinyStudy, pruning: dict[str, Any], trained: list[str]
) -> None:
    common = {"schedule": {"levels": 2}, "importance": {"examples": 16}}
    stages = study.make_stages(pruning=common | pruning, seed=3)
    levels = list(run_trial(stages))
    assert [name for name in computed(stages) if name == "retrain"] == trained
    assert levels[2].mask.num_kept("head") == 4
    is_dense = [level.lineage.weights == levels[0].lineage.weights for level in levels]
    assert is_dense.count(False) == len(trained)


def test_without_a_head_of_its_own_the_checkpoint_is_probed(
    body_study: TinyStudy,
) -> None:
    stages = body_study.make_stages(seed=4)
    results = list(run_trial(stages))
    assert computed(stages).count("probe") == 1
    objectives = [result.lineage.evidence.pretrained_objective for result in results]
    assert objectives == [None, "task_probe", "task_probe"]


def test_a_regression_task(degree_study: TinyStudy) -> None:
    stages = degree_study.make_stages(**LEARNING_TRIAL)
    assert stages.context.task.num_labels == 1
    levels = list(run_trial(stages))
    assert stages.context.task.metric == "pearson_spearman"
    assert levels[0].metric > 0.5
    assert levels[2].metric > 0.5
    assert levels[2].mask.num_kept("neuron") == 20


def weights_of(result: LevelResult) -> WeightsReference:
    return WeightsReference(result.lineage.weights, result.lineage.weights_file)


def weights_files(result: LevelResult, *stores: Store) -> Iterator[Path]:
    return (weights_path(store, weights_of(result)) for store in stores)
