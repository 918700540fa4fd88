"""What the ledger tells Optuna and the observers, and in what order."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from distprune.library.history import Event, History, Outcome, TrialEnded, TrialStarted, read_trials
from distprune.library.study_folder import StudyFolder
from distprune.search.ledger import Ledger
from distprune.search.study import _make_scheduler
from distprune.trial.results import MilestoneReport
from tests.search.fake_tune import run_trials
from tests.search.kill_switch import count_writes
from tests.search.mixed_study import (
    check_history_is_json,
    check_mixed_study,
    check_values,
    make_mixed_study,
)
from tests.search.synthetic import make_level, make_study, open_ledger, read_optuna


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path, "synthetic")


@pytest.fixture
def ledger(folder: StudyFolder) -> Ledger:
    return open_ledger(make_study(num_trials=2), folder)


def make_report(milestone: int, objective: float) -> MilestoneReport:
    level = make_level(milestone, 0.2 * milestone, 0.8)
    return MilestoneReport(milestone, level.sparsity, 0.7, objective, 0.8, milestone, (level,))


def test_trials_end_as_they_deserve(folder: StudyFolder) -> None:
    study = make_mixed_study()
    events: list[Event] = []
    ledger = open_ledger(study, folder, (events.append,))
    run_trials(study, ledger, _make_scheduler(study, ledger))
    check_mixed_study(study, folder)
    check_history_is_json(folder)
    assert events == list(ledger.history.events())


def test_all_run_to_the_target_where_nothing_stops_them(folder: StudyFolder) -> None:
    study = make_study(stopping=None)
    ledger = open_ledger(study, folder)
    run_trials(study, ledger, _make_scheduler(study, ledger))
    assert {trial.state for trial in read_optuna(folder.optuna_journal)} == {TrialState.COMPLETE}


@given(concurrency=st.integers(1, 4), turns=st.lists(st.integers(0, 1000), min_size=1, max_size=30))
def test_every_order_of_reports_is_told_faithfully(
    concurrency: int, turns: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    study = make_mixed_study()
    folder = StudyFolder(tmp_path_factory.mktemp("orders"), "synthetic")
    ledger = open_ledger(study, folder)
    turn = itertools.cycle(turns)
    with count_writes():
        run_trials(
            study,
            ledger,
            _make_scheduler(study, ledger),
            concurrency,
            lambda count: next(turn) % count,
        )
    check_values(study, folder)
    assert ledger.trials == read_trials(ledger.history.events())
    assert ledger.trials[2].end is not None
    assert {ledger.trials[n].end.outcome for n in (2, 3)} <= {  # type: ignore[union-attr]
        Outcome.DIVERGED,
        Outcome.FAILED,
        Outcome.STOPPED,
    }


def test_repeated_report_and_end_change_nothing(ledger: Ledger, folder: StudyFolder) -> None:
    """A trial whose process died walks its levels again; its first word counts."""
    assignment = ledger.assign()
    assert assignment is not None
    ledger.report(0, make_report(1, 0.7))
    ledger.report(0, make_report(1, 0.1))
    ledger.end(0)
    ledger.end(0, Outcome.FAILED, "late")
    assert len(list(ledger.history.events())) == 3
    (trial,) = read_optuna(folder.optuna_journal)
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.7}


def test_trial_that_ends_without_a_milestone_is_no_pruned_one(
    ledger: Ledger, folder: StudyFolder
) -> None:
    ledger.assign()
    ledger.end(0)
    assert read_optuna(folder.optuna_journal)[0].state == TrialState.FAIL


def test_observers_hear_after_the_history(folder: StudyFolder) -> None:
    """What an observer hears is on disk already."""
    written: list[int] = []

    def observe(event: Event) -> None:
        written.append(len(list(History(folder.history).events())))

    ledger = open_ledger(make_study(), folder, (observe,))
    ledger.assign()
    ledger.report(0, make_report(1, 0.7))
    ledger.end(0)
    assert written == [1, 2, 3]


def test_interrupted_trials_come_first_and_the_number_is_kept(folder: StudyFolder) -> None:
    study = make_study(num_trials=3)
    first = open_ledger(study, folder)
    specs = [assignment.spec for _ in range(2) if (assignment := first.assign())]
    first.end(0)
    again = open_ledger(study, folder)
    handed_out = [again.assign() for _ in range(3)]
    assert [a and a.number for a in handed_out] == [1, 2, None]
    assert handed_out[0] is not None
    assert handed_out[0].spec == specs[1]
    starts = [e.number for e in again.history.events() if isinstance(e, TrialStarted)]
    assert starts == [0, 1, 2]


def test_more_trials_extend_a_study(folder: StudyFolder) -> None:
    for num_trials in (2, 4):
        study = make_study(num_trials=num_trials)
        ledger = open_ledger(study, folder)
        run_trials(study, ledger, _make_scheduler(study, ledger))
    ends = [e.number for e in ledger.history.events() if isinstance(e, TrialEnded)]
    assert ends == [0, 1, 2, 3]
    longer = StudyFolder(folder.storage / "longer", "synthetic")
    ledger = open_ledger(study, longer)
    run_trials(study, ledger, _make_scheduler(study, ledger))
    assert [r.start.parameters for r in ledger.trials.values()] == [
        r.start.parameters for r in read_trials(History(folder.history).events()).values()
    ]
