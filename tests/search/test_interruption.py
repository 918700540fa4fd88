"""A study that is killed at any write goes on as if nothing had happened."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distprune.library.history import (
    History,
    MilestoneReached,
    Outcome,
    TrialEnded,
    read_trials,
)
from distprune.library.study_folder import StudyFolder
from distprune.search.proposals import STATES
from distprune.search.study import _make_scheduler
from distprune.search.study_file import Study
from tests.search.fake_tune import run_trials
from tests.search.kill_switch import KilledError, count_writes
from tests.search.successive_halving import SuccessiveHalving
from tests.search.synthetic import DIVERGING, make_study, open_ledger, read_optuna, trial_values


@dataclass(frozen=True)
class Ending:
    """What a study has found, times left out."""

    trials: dict[int, Any]
    rungs: list[tuple[float, list[float]]]


def run_session(study: Study, folder: StudyFolder) -> Ending:
    """Run the study from wherever its files say that it is."""
    ledger = open_ledger(study, folder)
    scheduler = _make_scheduler(study, ledger)
    run_trials(study, ledger, scheduler)
    return Ending(describe_trials(folder), read_rungs(scheduler))


def describe_trials(folder: StudyFolder) -> dict[int, Any]:
    return {
        number: {
            "spec": record.start.spec,
            "parameters": record.start.parameters,
            "reports": [event.report.to_json() for event in record.reports.values()],
            "end": record.end and (record.end.outcome, record.end.message),
        }
        for number, record in read_trials(History(folder.history).events()).items()
    }


def read_rungs(scheduler: Any) -> list[tuple[float, list[float]]]:
    return [(milestone, list(seen.values())) for milestone, seen in scheduler._brackets[0]._rungs]


@pytest.fixture(scope="module", params=["tpe", "random"])
def study(request: pytest.FixtureRequest) -> Study:
    """Six trials: three that start with given values, one that diverges, some that are stopped."""
    trial = trial_values() | {"retraining": {"batch_size": {"choice": [32, DIVERGING]}}}
    start = [
        {"pruning.mixing.coefficient": 0.9, "retraining.batch_size": 32},
        {"retraining.batch_size": DIVERGING, "pruning.schedule.shape": "linear"},
        {},
    ]
    sampler = {"name": request.param, "startup_trials": 2}
    return make_study(trial=trial, start_with=start, sampler=sampler, num_trials=7)


@pytest.fixture(scope="module")
def undisturbed(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ending, int]:
    """The study's ending, and the number of writes that lead to it."""
    folder = StudyFolder(tmp_path_factory.mktemp("undisturbed"), "synthetic")
    with count_writes() as switch:
        ending = run_session(study, folder)
    return ending, switch.num_done


def test_undisturbed_study_has_every_kind_of_ending(undisturbed: tuple[Ending, int]) -> None:
    outcomes = {trial["end"][0] for trial in undisturbed[0].trials.values()}
    assert outcomes == {Outcome.COMPLETED, Outcome.STOPPED, Outcome.DIVERGED}


def test_killed_before_any_write_ends_the_same(
    study: Study, undisturbed: tuple[Ending, int], tmp_path: Path
) -> None:
    ending, num_writes = undisturbed
    for num_left in range(num_writes):
        folder = StudyFolder(tmp_path / str(num_left), "synthetic")
        with count_writes(num_left), pytest.raises(KilledError):
            run_session(study, folder)
        with count_writes():
            assert run_session(study, folder) == ending, f"killed before write {num_left}"
        check_optuna(folder)


def test_killed_again_while_it_recovers_ends_the_same(
    study: Study, undisturbed: tuple[Ending, int], tmp_path: Path
) -> None:
    ending, num_writes = undisturbed
    folder = StudyFolder(tmp_path, "synthetic")
    for _ in range(num_writes):
        with count_writes(num_left=11):
            try:
                assert run_session(study, folder) == ending
                break
            except KilledError:
                continue
    assert describe_trials(folder) == ending.trials
    check_optuna(folder)


def check_optuna(folder: StudyFolder) -> None:
    """Each trial of the history has one trial in Optuna that says the same; there is no other."""
    told = {trial.number: trial for trial in read_optuna(folder.optuna_journal)}
    for record in read_trials(History(folder.history).events()).values():
        trial = told.pop(record.number)
        assert record.end is not None
        assert trial.state == STATES[record.end.outcome]
        objectives = {m: event.report.objective for m, event in record.reports.items()}
        assert trial.intermediate_values == objectives
    assert told == {}


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "no journal": lambda path: path.write_bytes(b"\x00garbage\n{}\n"),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "of another study": lambda path: path.write_text(
        '{"op_code":0,"worker_id":"1","study_name":"another","directions":[2]}\n'
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_became_of_optunas_journal_it_ends_the_same(
    damage: str, study: Study, undisturbed: tuple[Ending, int], tmp_path: Path
) -> None:
    ending, num_writes = undisturbed
    for num_left in range(2, num_writes, 5):
        folder = StudyFolder(tmp_path / str(num_left), "synthetic")
        with count_writes(num_left), pytest.raises(KilledError):
            run_session(study, folder)
        DAMAGES[damage](folder.optuna_journal)
        with count_writes():
            assert run_session(study, folder) == ending, f"killed before write {num_left}"
        check_optuna(folder)


def test_journal_that_is_behind_the_history_is_caught_up(
    study: Study, undisturbed: tuple[Ending, int], tmp_path: Path
) -> None:
    ending, num_writes = undisturbed
    folder = StudyFolder(tmp_path, "synthetic")
    with count_writes(4), pytest.raises(KilledError):
        run_session(study, folder)
    behind = folder.optuna_journal.read_bytes()
    with count_writes(num_writes - 8), pytest.raises(KilledError):
        run_session(study, folder)
    folder.optuna_journal.write_bytes(behind)
    with count_writes():
        assert run_session(study, folder) == ending
    check_optuna(folder)


@settings(max_examples=25)
@given(
    concurrency=st.integers(2, 4),
    turns=st.lists(st.integers(0, 1000), min_size=10, max_size=30),
    kills=st.lists(st.integers(1, 25), max_size=4),
)
def test_report_is_judged_once_however_often_trials_start_again(
    concurrency: int,
    turns: list[int],
    kills: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A trial that starts again reports again, after others that were not there at first."""
    study = make_study(milestones=[0.15, 0.3, 0.45, 0.6], num_trials=8)
    folder = StudyFolder(tmp_path_factory.mktemp("judged"), "synthetic")
    turn = itertools.cycle(turns)
    for num_left in [*kills, None]:
        with count_writes(num_left), contextlib.suppress(KilledError):
            ledger = open_ledger(study, folder)
            scheduler = _make_scheduler(study, ledger)
            run_trials(study, ledger, scheduler, concurrency, lambda count: next(turn) % count)
    judge = SuccessiveHalving(2, 1, len(study.milestones))
    stopped = set()
    for event in History(folder.history).events():
        if isinstance(event, MilestoneReached):
            assert event.number not in stopped
            if not judge.goes_on(event.report.milestone, event.report.objective):
                stopped.add(event.number)
        elif isinstance(event, TrialEnded):
            assert event.number in stopped
    assert len(stopped) == 8


@pytest.mark.parametrize("file", ["history", "optuna_journal"])
@pytest.mark.parametrize("num_bytes", [1, 20])
def test_line_that_a_full_disk_cut_off_is_as_good_as_none(
    file: str, num_bytes: int, study: Study, undisturbed: tuple[Ending, int], tmp_path: Path
) -> None:
    for num_left in range(1, undisturbed[1], 9):
        folder = StudyFolder(tmp_path / str(num_left), "synthetic")
        with count_writes(num_left), pytest.raises(KilledError):
            run_session(study, folder)
        path: Path = getattr(folder, file)
        with path.open("ab") as stream:
            stream.write(b'{"event": "MilestoneReached", "op_code": 4'[:num_bytes])
        with count_writes():
            assert run_session(study, folder) == undisturbed[0], f"killed before {num_left}"
        check_optuna(folder)
