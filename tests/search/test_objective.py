"""A latency to meet in a study file: checked before anything is trained, kept with the study."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from distprune.core.latency_table import Machine, read_table, write_table
from distprune.core.mask import Mask
from distprune.deployment.machine import describe_machine
from distprune.errors import ConfigError, StorageError, StudyExistsError
from distprune.library.study_folder import StudyFolder
from distprune.methods.spec import PruningSpec
from distprune.search.objective import find_comparable, open_objective, predict_evenly
from distprune.search.spec import LatencyLimit
from distprune.search.study import _make_scheduler
from distprune.search.study_file import Study, check_study
from distprune.search.study_state import open_study, resolve_settings
from distprune.trial.latency_objective import LatencyObjective
from distprune.trial.reporter import Objective
from tests.core.latencies import CONDITIONS, make_latencies, make_table
from tests.search.synthetic import make_study, open_ledger, study_values
from tests.tiny_study import SHAPE
from tests.trial.canned import CONTEXT

LIMIT = {"latency_ms": 12.0, "table": "latency.json"}
"""The model of `tests.core.latencies` takes 19 ms dense, and 11.8 ms at the target sparsity 0.6."""

FILLED = {
    **LIMIT,
    "batch": None,
    "length": None,
    "threads": None,
    "dtype": None,
    "machine": "this",
}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "studies", "synthetic")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A table of the tiny model, measured on this machine."""
    path = tmp_path / "measured.json"
    write_table(make_table(machine=describe_machine()), path)
    return path


def study_with(file: Path, **changes: Any) -> Study:
    return make_study(objective={**LIMIT, "table": str(file), **changes})


class TestStudyFile:
    """What can be written."""

    def test_words_stay_words(self) -> None:
        assert resolve_settings(make_study())["objective"] == "curve"
        assert resolve_settings(make_study(objective="target"))["objective"] == "target"
        assert make_study(objective="target").spec.objective is Objective.TARGET

    def test_latency_is_resolved_and_read_back(self) -> None:
        study = make_study(objective=LIMIT)
        assert study.spec.objective == LatencyLimit(latency_ms=12.0, table="latency.json")
        resolved = resolve_settings(study)
        assert resolved["objective"] == FILLED
        again = check_study(yaml.safe_load(yaml.safe_dump(resolved)))
        assert resolve_settings(again) == resolved

    @pytest.mark.parametrize(
        ("objective", "line"),
        [
            ("best", "objective: 'best' should be 'curve' or 'target'; correct it"),
            (3, "objective: 3 should be 'curve' or 'target'; correct it"),
            (None, "objective: None should be 'curve' or 'target'; correct it"),
            ({"latency_ms": 4}, "objective.table: missing; give it a value"),
            (
                {**LIMIT, "latency_ms": 0},
                "objective.latency_ms: 0 should be greater than 0; correct it",
            ),
            (
                {**LIMIT, "latency_ms": "4"},
                "objective.latency_ms: '4' must be a number; write it without quotes; correct it",
            ),
            (
                {**LIMIT, "bacth": 3},
                "objective.bacth: unknown name; did you mean 'batch'?",
            ),
            (
                {**LIMIT, "threads": 0},
                "objective.threads: 0 should be greater than or equal to 1; correct it",
            ),
            (
                {**LIMIT, "machine": "other"},
                "objective.machine: 'other' should be 'this' or 'any'; correct it",
            ),
            (
                {**LIMIT, "table": ""},
                "objective.table: '' String should have at least 1 character; correct it",
            ),
        ],
        ids=str,
    )
    def test_one_line_a_problem(self, objective: Any, line: str) -> None:
        with pytest.raises(ConfigError) as caught:
            check_study(study_values(objective=objective))
        assert str(caught.value) == line

    def test_parts_can_be_set_from_outside(self) -> None:
        from distprune.search.space import set_values

        values = set_values(study_values(objective=LIMIT), {"objective.latency_ms": 9})
        assert check_study(values).spec.objective == LatencyLimit(**{**LIMIT, "latency_ms": 9})


class TestIdentity:
    """A study with another latency is another study."""

    @pytest.mark.parametrize(
        ("change", "shown"),
        [
            ({"latency_ms": 13.0}, "objective.latency_ms: 12.0 is now 13.0"),
            ({"table": "other.json"}, "objective.table: latency.json is now other.json"),
            ({"batch": 4}, "objective.batch: None is now 4"),
        ],
        ids=str,
    )
    def test_change_is_refused_by_name(
        self, change: dict[str, Any], shown: str, folder: StudyFolder
    ) -> None:
        study = make_study(objective=LIMIT)
        open_study(study, folder, fresh=False)
        open_ledger(study, folder).assign()
        open_study(make_study(objective=LIMIT), folder, fresh=False)
        with pytest.raises(StudyExistsError) as caught:
            open_study(make_study(objective={**LIMIT, **change}), folder, fresh=False)
        assert shown in str(caught.value)

    def test_words_and_latencies_are_told_apart(self, folder: StudyFolder) -> None:
        open_study(make_study(), folder, fresh=False)
        open_ledger(make_study(), folder).assign()
        with pytest.raises(StudyExistsError, match=r"objective: curve is now \{'latency_ms': 12"):
            open_study(make_study(objective=LIMIT), folder, fresh=False)


class TestTable:
    """The table is read once, checked, and kept."""

    def test_words_need_none(self, folder: StudyFolder) -> None:
        assert open_objective(make_study(), folder, CONTEXT) is Objective.CURVE
        assert not folder.latency_table.exists()

    def test_the_study_keeps_what_it_uses(self, file: Path, folder: StudyFolder) -> None:
        other = make_latencies(conditions=replace(CONDITIONS, batch=32))
        write_table(read_table(file).include(other), file)
        objective = open_objective(study_with(file, batch=1), folder, CONTEXT)
        assert objective == LatencyObjective(0.012, make_latencies())
        assert read_table(folder.latency_table).latencies == (make_latencies(),)

    def test_study_that_has_begun_keeps_its_table(self, file: Path, folder: StudyFolder) -> None:
        study = study_with(file)
        first = open_objective(study, folder, CONTEXT)
        open_ledger(study, folder).assign()
        slower = make_latencies(rest=0.006)
        write_table(make_table(slower, machine=Machine("Other", (), 1)), file)
        assert open_objective(study, folder, CONTEXT) == first
        file.unlink()
        assert open_objective(study, folder, CONTEXT) == first

    def test_study_without_a_trial_reads_it_again(self, file: Path, folder: StudyFolder) -> None:
        study = study_with(file)
        open_objective(study, folder, CONTEXT)
        faster = make_latencies(rest=0.004)
        write_table(make_table(faster, machine=describe_machine()), file)
        assert open_objective(study, folder, CONTEXT) == LatencyObjective(0.012, faster)

    def test_missing(self, tmp_path: Path, folder: StudyFolder) -> None:
        with pytest.raises(StorageError, match="does not exist; correct the path, or measure one"):
            open_objective(study_with(tmp_path / "nowhere.json"), folder, CONTEXT)
        assert not folder.root.exists()

    def test_other_machine(self, file: Path, folder: StudyFolder) -> None:
        write_table(make_table(), file)
        with pytest.raises(ConfigError, match=r"Fast 9000 .* or say objective\.machine: any"):
            open_objective(study_with(file), folder, CONTEXT)
        assert open_objective(study_with(file, machine="any"), folder, CONTEXT)

    def test_other_architecture(self, file: Path, folder: StudyFolder) -> None:
        checkpoint = replace(CONTEXT.checkpoint, model_type="roberta")
        with pytest.raises(ConfigError, match=r"measured of bert .* this is roberta"):
            open_objective(study_with(file), folder, replace(CONTEXT, checkpoint=checkpoint))

    @pytest.mark.parametrize("wanted", [{"threads": 4}, {"dtype": "bfloat16"}, {"length": 9}])
    def test_conditions_that_were_not_measured(
        self, wanted: dict[str, Any], file: Path, folder: StudyFolder
    ) -> None:
        with pytest.raises(ConfigError, match="nothing was measured for"):
            open_objective(study_with(file, **wanted), folder, CONTEXT)

    @pytest.mark.parametrize(
        ("latency_ms", "words"),
        [
            (19.0, "the dense model is predicted to take 19 ms already"),
            (10.0, r"at the target sparsity 0\.6 the model is predicted to take 11\.8 ms still"),
        ],
    )
    def test_latency_out_of_reach(
        self, latency_ms: float, words: str, file: Path, folder: StudyFolder
    ) -> None:
        with pytest.raises(ConfigError, match=f"objective.latency_ms: {latency_ms:g}; {words}"):
            open_objective(study_with(file, latency_ms=latency_ms), folder, CONTEXT)


class TestComparable:
    """No trial is stopped before its latency can be compared with others'."""

    PRUNING = PruningSpec.model_validate({"target_sparsity": 0.6})
    MILESTONES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)

    def find(self, limit: float, pruning: PruningSpec = PRUNING) -> int:
        objective = LatencyObjective(limit, make_latencies())
        return find_comparable(objective, self.MILESTONES, SHAPE, pruning)

    def test_prediction_of_layers_that_are_cut_alike(self) -> None:
        latencies = make_latencies()
        dense = predict_evenly(latencies, SHAPE, self.PRUNING, 0.0)
        assert dense == pytest.approx(latencies.predict(Mask.dense(SHAPE)))
        assert predict_evenly(latencies, SHAPE, self.PRUNING, 0.5) == pytest.approx(0.013)
        of_heads = PruningSpec.model_validate({"units": ["head"]})
        assert predict_evenly(latencies, SHAPE, of_heads, 0.5) == pytest.approx(0.015)

    def test_milestone_that_meets_it_for_sure(self) -> None:
        """19, 17.8, 16.6, 15.4, 14.2, 13, 11.8 ms; five percent are left for uneven layers."""
        assert self.find(0.020) == 1
        assert self.find(0.0167) == 3
        assert self.find(0.0175) == 2
        assert self.find(0.0138) == 5
        assert self.find(0.0119) == len(self.MILESTONES)

    def test_words_can_be_compared_at_once(self) -> None:
        assert find_comparable(Objective.CURVE, self.MILESTONES, SHAPE, self.PRUNING) == 1

    def test_halving_begins_there(self, folder: StudyFolder) -> None:
        study = make_study()
        ledger = open_ledger(study, folder)
        rungs = [milestone for milestone, _ in _make_scheduler(study, ledger)._brackets[0]._rungs]
        assert min(rungs) == 1
        later = _make_scheduler(study, ledger, comparable=2)
        assert [milestone for milestone, _ in later._brackets[0]._rungs] == [2]

    def test_one_shot_trial_does_not_win_before(self, folder: StudyFolder) -> None:
        """At the first milestone it is the only one that meets the latency, and the worst model."""
        from types import SimpleNamespace

        study = make_study(objective=LIMIT)
        objectives = {"one shot": (0.5, 0.5, 0.5), "iterative": (-0.3, 0.9, 0.9)}
        for comparable, stopped in ((1, ["iterative"]), (2, ["one shot"])):
            scheduler = _make_scheduler(study, open_ledger(study, folder), comparable)
            assert self.play(scheduler, objectives, SimpleNamespace) == stopped

    def play(self, scheduler: Any, objectives: dict[str, Any], make_trial: Any) -> list[str]:
        """Report milestone by milestone, the better trial first, and return who was stopped."""
        stopped: list[str] = []
        for milestone in (1, 2):
            order = sorted(objectives, key=lambda name: -objectives[name][milestone - 1])
            for name in order:
                if name in stopped:
                    continue
                result = {"milestone": milestone, "objective": objectives[name][milestone - 1]}
                trial = make_trial(trial_id=name, config={"number": list(objectives).index(name)})
                if scheduler.on_trial_result(None, trial, result) == "STOP":
                    stopped.append(name)
        return stopped


def test_reports_travel_as_before(file: Path, folder: StudyFolder) -> None:
    """The resolved objective is small, and survives pickling to a trial's process."""
    import pickle

    objective = open_objective(study_with(file), folder, CONTEXT)
    packed = pickle.dumps(objective)
    assert len(packed) < 5000
    assert pickle.loads(packed) == objective
    assert json.loads(folder.latency_table.read_text())["schema"] == "distprune.latency_table/1"
