"""Forgetting: measured on stages, gathered over seeds, kept in a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distprune.core.importance_scores import Importance
from distprune.core.units import UnitKind
from distprune.errors import CheckpointError, StorageError
from distprune.library.forgetting import (
    Forgetting,
    correlate_scores,
    locate_forgetting,
    measure_forgetting,
    name_domain,
    read_forgetting,
    write_forgetting,
)
from distprune.library.initial_scores import InitialScores, explain_no_scores, measure_scores
from distprune.library.replication import seed_stages
from distprune.library.study_folder import StudyFolder
from distprune.store.store import Store
from distprune.tasks.spec import TaskSpec
from distprune.trial.stages import TrialStages
from tests.tiny_study import SHAPE
from tests.trial.canned import computed, make_pruning, make_stages
from tests.trial.studies import TinyStudy


@pytest.fixture
def stages(tmp_path: Path) -> TrialStages:
    return make_stages(Store(str(tmp_path / "store")), pruning=make_pruning())


def make_forgetting(**options: Any) -> Forgetting:
    heads = np.array([[0.2, np.nan], [0.6, np.nan]])
    values: dict[str, Any] = {
        "domain": "movies",
        "pretrained_objective": "mlm",
        "seeds": (1, 2),
        "correlations": {UnitKind.HEAD: heads, UnitKind.NEURON: heads[::-1] / 2 + 0.25},
    }
    return Forgetting(**(values | options))


def test_it_is_measured_before_anything_is_removed(stages: TrialStages) -> None:
    found = measure_forgetting(stages)
    assert sorted(computed(stages)) == ["dense", "score", "score", "snapshot"]
    assert (found.domain, found.seeds, found.pretrained_objective) == ("movies", (0,), "mlm")
    for kind in UnitKind:
        assert found.correlations[kind].shape == (1, SHAPE.num_layers)
        assert (np.abs(found.correlations[kind]) <= 1).all()


def test_seeds_are_gathered(stages: TrialStages) -> None:
    replicates = [seed_stages(stages, stages.spec, seed) for seed in (1, 2, 3)]
    gathered = correlate_scores(stages, [measure_scores(replicate) for replicate in replicates])
    assert gathered.seeds == (1, 2, 3)
    for kind in UnitKind:
        alone = [measure_forgetting(replicate).correlations[kind][0] for replicate in replicates]
        np.testing.assert_array_equal(gathered.correlations[kind], alone)
        np.testing.assert_allclose(gathered.mean(kind), np.mean(alone, axis=0))


def test_model_that_has_not_moved_has_forgotten_nothing(stages: TrialStages) -> None:
    scores = measure_scores(stages)
    same = InitialScores(1, scores.finetuned, scores.finetuned)
    turned = Importance({kind: 2.0 - scores.finetuned[kind] for kind in UnitKind})
    for pretrained, expected in ((same.pretrained, 1.0), (turned, -1.0)):
        found = correlate_scores(stages, [InitialScores(1, pretrained, scores.finetuned)])
        for kind in UnitKind:
            np.testing.assert_allclose(found.mean(kind), expected)


def test_mean_and_range_leave_out_what_has_no_order() -> None:
    found = make_forgetting()
    np.testing.assert_allclose(found.mean(UnitKind.HEAD), [0.4, np.nan])
    low, high = found.range(UnitKind.HEAD)
    np.testing.assert_allclose(low, [0.2, np.nan])
    np.testing.assert_allclose(high, [0.6, np.nan])


def test_objective_that_the_checkpoint_cannot_have(stages: TrialStages) -> None:
    checkpoint = replace(stages.context.checkpoint, has_mlm_head=False)
    importance = {"pretrained_objective": "mlm"}
    bare = make_stages(
        stages.store,
        replace(stages.context, checkpoint=checkpoint),
        pruning=make_pruning(importance=importance),
    )
    assert "MLM" in (explain_no_scores(bare) or "")
    with pytest.raises(CheckpointError):
        measure_forgetting(bare)


@pytest.mark.parametrize(
    ("importance", "reason"),
    [
        ({"criterion": "random"}, "the scores of its trial are random"),
        ({"criterion": "magnitude"}, None),
        ({}, None),
    ],
)
def test_settings_without_two_importances(
    importance: dict[str, str], reason: str | None, tmp_path: Path
) -> None:
    stages = make_stages(Store(str(tmp_path)), pruning=make_pruning(importance=importance))
    assert explain_no_scores(stages) == reason


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"dataset": "demo:movies"}, "movies"),
        ({"dataset": "data/reviews.csv"}, "reviews"),
        ({"dataset": "nyu-mll/glue", "config": "sst2"}, "nyu-mll/glue sst2"),
    ],
)
def test_name_of_a_domain(settings: dict[str, str], name: str) -> None:
    assert name_domain(TaskSpec.model_validate(settings)) == name


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "mine")
    assert read_forgetting(folder) == []
    domains = [make_forgetting(), make_forgetting(domain="tweets")]
    write_forgetting(folder, domains)
    found = read_forgetting(folder)
    assert [entry.domain for entry in found] == ["movies", "tweets"]
    for kind in UnitKind:
        np.testing.assert_array_equal(found[1].correlations[kind], domains[1].correlations[kind])
    values = json.loads(locate_forgetting(folder).read_text())
    assert values["domains"][0]["mean"]["head"] == [pytest.approx(0.4), None]


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "x"}'])
def test_damaged_file(text: str, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "mine")
    locate_forgetting(folder).parent.mkdir(parents=True)
    locate_forgetting(folder).write_text(text)
    with pytest.raises(StorageError, match="run `distprune confirm` again"):
        read_forgetting(folder)


def test_a_model_that_is_really_trained(study: TinyStudy) -> None:
    found = measure_forgetting(study.make_stages())
    for kind in UnitKind:
        assert np.isfinite(found.mean(kind)).all()
        assert found.mean(kind).shape == (SHAPE.num_layers,)
