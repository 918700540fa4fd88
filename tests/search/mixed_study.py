"""A study whose trials end in every way, and what has to be true of it afterwards."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from optuna.trial import TrialState

from distprune.library.history import History, Outcome, read_trials
from distprune.library.leaderboard import choose_best
from distprune.library.study_folder import StudyFolder
from distprune.search.study_file import Study
from tests.search.synthetic import (
    COLLAPSING,
    DIVERGING,
    FAILING,
    REFERENCE,
    make_study,
    measure_levels,
    read_optuna,
    trial_values,
)

ENDINGS = [
    (Outcome.COMPLETED, 4),
    (Outcome.STOPPED, 1),
    (Outcome.DIVERGED, 1),
    (Outcome.FAILED, 1),
    (Outcome.COMPLETED, 4),
    (Outcome.STOPPED, 2),
]
"""Outcome and milestones of each trial, where they run one after the other."""

OPTUNA_STATES = {
    Outcome.COMPLETED: TrialState.COMPLETE,
    Outcome.STOPPED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.FAIL,
    Outcome.FAILED: TrialState.FAIL,
}


def make_mixed_study(**changes: Any) -> Study:
    """Return a study of six trials, all of them given.

    Trial 5 is the best of all at the first milestone, and is stopped at the second.
    """
    trial = trial_values(schedule={"shape": "linear", "levels": {"int": [2, 4]}})
    trial["pruning"]["target_sparsity"] = 0.8
    batches = [32, DIVERGING, FAILING, COLLAPSING]
    trial["retraining"] = {"batch_size": {"choice": batches}}
    start = [(0.5, 32), (1.0, 32), (0.4, DIVERGING), (0.4, FAILING), (0.3, 32), (0.3, COLLAPSING)]
    start_with = [
        {
            "pruning.schedule.levels": 4,
            "pruning.mixing.coefficient": coefficient,
            "retraining.batch_size": batch_size,
        }
        for coefficient, batch_size in start
    ]
    milestones = [0.2, 0.4, 0.6, 0.8]
    return make_study(trial=trial, start_with=start_with, milestones=milestones, **changes)


def check_mixed_study(study: Study, folder: StudyFolder) -> None:
    """Check what history, Optuna and leaderboard say of the study."""
    trials = read_trials(History(folder.history).events())
    assert [(trials[n].end.outcome, len(trials[n].reports)) for n in sorted(trials)] == ENDINGS
    check_values(study, folder)
    check_messages(folder)
    check_best(folder)


def check_values(study: Study, folder: StudyFolder) -> None:
    """Optuna knows each trial's objective at each milestone that it reached, the last included."""
    told = {trial.number: trial for trial in read_optuna(folder.optuna_journal)}
    trials = read_trials(History(folder.history).events())
    assert len(told) == len(trials)
    for record in trials.values():
        assert record.end is not None
        retentions = measure_retentions(study, record.start.parameters)[: len(record.reports)]
        curve = {
            milestone: pytest.approx(sum(retentions[:milestone]) / milestone)
            for milestone in range(1, len(retentions) + 1)
        }
        trial = told[record.start.proposal]
        assert trial.state == OPTUNA_STATES[record.end.outcome]
        assert trial.intermediate_values == curve
        assert all(math.isfinite(value) for value in trial.intermediate_values.values())
        if trial.state == TrialState.COMPLETE:
            assert trial.value == curve[len(study.milestones)]
        assert trial.params == record.start.parameters


def measure_retentions(study: Study, parameters: Mapping[str, Any]) -> list[float]:
    """Return the retention of a trial at each milestone that it can reach."""
    levels = []
    with contextlib.suppress(RuntimeError):
        for level in measure_levels(study.make_trial(parameters)):
            levels.append(level)
    reached = [
        next((level for level in levels if level.sparsity > milestone - 1e-9), None)
        for milestone in study.milestones
    ]
    advantage = REFERENCE.dense - REFERENCE.floor
    return [(level.metric - REFERENCE.floor) / advantage for level in reached if level]


def check_messages(folder: StudyFolder) -> None:
    """A trial that did not end well says why, a failure with its traceback."""
    trials = read_trials(History(folder.history).events())
    messages = {number: record.end.message for number, record in trials.items() if record.end}
    assert [number for number, message in messages.items() if message] == [2, 3]
    assert "not finite" in messages[2]
    assert messages[3].startswith("Traceback")
    assert messages[3].endswith("the disk\nis on fire")


def check_best(folder: StudyFolder) -> None:
    """The best at a milestone has reached it, however good others were before."""
    trials = read_trials(History(folder.history).events())
    objectives = {
        (number, milestone): event.report.objective
        for number, record in trials.items()
        for milestone, event in record.reports.items()
    }
    assert max(objectives, key=lambda place: objectives[place]) == (5, 1)
    best = [choose_best(trials.values(), sparsity, True) for sparsity in (0.2, 0.4, 0.6, 0.8)]
    assert [(b.trial.number, b.result.level) for b in best if b] == [(5, 1), (4, 2), (4, 3), (4, 4)]


def check_history_is_json(folder: StudyFolder) -> None:
    """No line holds NaN, which is no JSON."""
    for line in folder.history.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"history holds {name}"))
