"""A trial that is known already costs nothing, and is told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distprune.core.retention import Reference
from distprune.library.history import History, Outcome, read_trials
from distprune.library.study_folder import StudyFolder
from distprune.search.answers import answer_from_store
from distprune.search.ledger import Assignment, Ledger
from distprune.search.study_file import Study, check_study
from distprune.search.trainable import TrialSurroundings
from distprune.store.store import Store
from distprune.trial.reporter import Objective, report_milestones
from distprune.trial.results import MilestoneReport
from distprune.trial.runner import run_trial
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import TrialStages
from tests.search.synthetic import open_ledger
from tests.trial.canned import CONTEXT
from tests.trial.studies import CannedExecutor

REFERENCE = Reference(dense=0.8, floor=0.5, higher_is_better=True)


@pytest.fixture
def surroundings(tmp_path: Path) -> TrialSurroundings:
    store = Store(str(tmp_path / "store"))
    return TrialSurroundings(CONTEXT, REFERENCE, (0.25, 0.5), Objective.CURVE, store, None)


def make_twin_study(**changes: Any) -> Study:
    """Return a study whose second and third trial keep the same units as its first."""
    values = {
        "name": "synthetic",
        "num_trials": 4,
        "milestones": 2,
        "start_with": [
            {"pruning.mixing.coefficient": value} for value in (0.5, 0.5 + 1e-9, 0.5 - 1e-9, 0.9)
        ],
        "trial": {
            "checkpoint": "tiny",
            "task": {"dataset": "demo:movies"},
            "pruning": {
                "schedule": {"levels": 2},
                "mixing": {"coefficient": {"uniform": [0.0, 1.0]}},
            },
        },
    }
    return check_study(values | changes)


def run(assignment: Assignment, ledger: Ledger, surroundings: TrialSurroundings) -> None:
    """Compute a trial with made-up stages, and record it."""
    for report in walk(assignment.spec, surroundings):
        ledger.report(assignment.number, report)
    ledger.end(assignment.number)


def walk(spec: TrialSpec, surroundings: TrialSurroundings) -> list[MilestoneReport]:
    store = surroundings.store
    stages = TrialStages(spec, surroundings.context, store, CannedExecutor(store))
    milestones, reference = surroundings.milestones, surroundings.reference
    return [*report_milestones(run_trial(stages), milestones, reference, surroundings.objective)]


def open_answering(study: Study, folder: StudyFolder, surroundings: TrialSurroundings) -> Ledger:
    ledger = open_ledger(study, folder)
    ledger.answer = lambda spec: answer_from_store(spec, surroundings)
    return ledger


def without_cost(report: MilestoneReport) -> MilestoneReport:
    levels = tuple(replace(level, seconds=0.0, uses=()) for level in report.new_levels)
    return replace(report, new_levels=levels)


def test_answer_is_what_the_trial_would_have_reported(surroundings: TrialSurroundings) -> None:
    spec = make_twin_study().make_trial({"pruning.mixing.coefficient": 0.5})
    assert answer_from_store(spec, surroundings) is None
    reported = walk(spec, surroundings)
    answered = answer_from_store(spec, surroundings)
    assert answered is not None
    assert [*map(without_cost, answered)] == [*map(without_cost, reported)]


def test_nothing_is_answered_that_lacks_a_stage(surroundings: TrialSurroundings) -> None:
    spec = make_twin_study().make_trial({"pruning.mixing.coefficient": 0.5})
    reports = walk(spec, surroundings)
    last = reports[-1].new_levels[-1].lineage.evaluation
    Path(surroundings.store.root, "entries", last[:2], last, "manifest.json").unlink()
    assert answer_from_store(spec, surroundings) is None


def test_no_trial_is_spent_on_equal_work(tmp_path: Path, surroundings: TrialSurroundings) -> None:
    folder = StudyFolder(tmp_path, "synthetic")
    ledger = open_answering(make_twin_study(), folder, surroundings)
    answered: list[int] = []
    ledger.on_answered = lambda reports: answered.append(reports[0].number)
    handed_out = []
    while assignment := ledger.assign():
        handed_out.append(assignment.number)
        run(assignment, ledger, surroundings)
    assert handed_out == [0, 3]
    assert answered == [1, 2]
    trials = read_trials(History(folder.history).events())
    assert [trials[n].start.is_stored for n in range(4)] == [False, True, True, False]
    assert [trials[n].start.equal_to for n in range(4)] == [None, 0, 0, None]
    assert {record.end and record.end.outcome for record in trials.values()} == {Outcome.COMPLETED}


def test_another_study_with_the_same_store_runs_nothing(
    tmp_path: Path, surroundings: TrialSurroundings
) -> None:
    first = open_answering(make_twin_study(), StudyFolder(tmp_path / "1", "s"), surroundings)
    while assignment := first.assign():
        run(assignment, first, surroundings)
    again = open_answering(make_twin_study(), StudyFolder(tmp_path / "2", "s"), surroundings)
    assert again.assign() is None
    assert [again.trials[n].start.equal_to for n in range(4)] == [None, 0, 0, None]
    assert all(record.start.is_stored for record in again.trials.values())


def test_answer_that_was_cut_off_is_given_again(
    tmp_path: Path, surroundings: TrialSurroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the trial would be run, and might be stopped where it was not before."""
    folder = StudyFolder(tmp_path, "synthetic")
    ledger = open_answering(make_twin_study(), folder, surroundings)
    first = ledger.assign()
    assert first is not None
    run(first, ledger, surroundings)
    monkeypatch.setattr(ledger, "end", lambda number: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ledger.assign()
    resumed = open_answering(make_twin_study(), folder, surroundings)
    assert (resumed.trials[1].start.is_stored, resumed.trials[1].end) == (True, None)
    assignment = resumed.assign()
    assert assignment is not None
    assert assignment.number == 3
    end = resumed.trials[1].end
    assert end is not None
    assert end.outcome is Outcome.COMPLETED
