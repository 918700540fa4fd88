"""ASHA over milestones against a second implementation; what trials and their ends become."""

from __future__ import annotations

import math
import pickle
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.trainable.metadata import _TrainingRunMetadata

from distprune.library.history import MilestoneReached
from distprune.search import tune_adapters
from distprune.search.ledger import Assignment
from distprune.search.spec import StoppingSpec
from distprune.search.tune_adapters import (
    FAILURE,
    MILESTONE,
    OBJECTIVE,
    REPORT,
    LedgerCallback,
    LedgerSearcher,
    MilestoneASHA,
    PatientController,
    RunToTarget,
)
from distprune.trial.results import MilestoneReport
from tests.search.fake_tune import make_controller, make_trial
from tests.search.successive_halving import SuccessiveHalving
from tests.search.synthetic import make_study

FAILED = {OBJECTIVE: math.nan, f"{FAILURE}/outcome": "diverged", f"{FAILURE}/message": "nan"}


@st.composite
def report_orders(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a study: its halving, each trial's objectives (None = diverged), whose turn it is."""
    reduction_factor = draw(st.sampled_from([2, 3, 4]))
    num_milestones = draw(st.integers(1, 9))
    num_trials = draw(st.integers(1, 9))
    # Halves and quarters are exact, so that ties are ties; thirds are not, so there are none.
    value = st.integers(0, 6).map(lambda n: n / 8)
    if reduction_factor == 3:
        value = st.integers(2, 10**6).map(math.log)
    objective = st.one_of(*[value] * 12, st.none())
    objectives = st.lists(objective, min_size=num_milestones, max_size=num_milestones)
    return {
        "stopping": StoppingSpec(
            reduction_factor=reduction_factor, grace_milestones=draw(st.integers(1, 5))
        ),
        "num_milestones": num_milestones,
        "trials": [draw(objectives) for _ in range(num_trials)],
        "turns": draw(st.lists(st.integers(0, 1000), min_size=81, max_size=81)),
    }


def run_both(study: dict[str, Any]) -> tuple[MilestoneASHA, SuccessiveHalving, list[Any]]:
    """Run a drawn study; check each decision, and return both schedulers and what was reported."""
    stopping, num_milestones = study["stopping"], study["num_milestones"]
    scheduler = MilestoneASHA(stopping, num_milestones)
    reference = SuccessiveHalving(
        stopping.reduction_factor, stopping.grace_milestones, num_milestones
    )
    running = []
    for number, objectives in enumerate(study["trials"]):
        trial = make_trial(
            f"id-{number}", number=number, config={"number": number}, left=list(objectives)
        )
        scheduler.on_trial_add(make_controller(), trial)
        running.append(trial)
    reports = []
    for turn in study["turns"]:
        if not running:
            break
        trial = running[turn % len(running)]
        milestone = num_milestones - len(trial.left) + 1
        objective = trial.left.pop(0)
        result = dict(FAILED) if objective is None else {MILESTONE: milestone, OBJECTIVE: objective}
        goes_on = objective is not None and reference.goes_on(milestone, objective)
        expected = TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
        assert scheduler.on_trial_result(None, trial, result) == expected
        if objective is not None:
            reports.append(make_event(trial.number, milestone, objective))
        if not goes_on:
            scheduler.on_trial_complete(None, trial, result)
            running.remove(trial)
    assert not running
    return scheduler, reference, reports


def make_event(number: int, milestone: int, objective: float) -> MilestoneReached:
    report = MilestoneReport(milestone, 0.1 * milestone, objective, objective, 0.5, 1, ())
    return MilestoneReached(number, 0.0, report)


def read_rungs(scheduler: MilestoneASHA) -> dict[int, list[float]]:
    return {int(rung): list(seen.values()) for rung, seen in scheduler._brackets[0]._rungs}


@given(report_orders())
def test_decides_as_successive_halving_does(study: dict[str, Any]) -> None:
    scheduler, reference, _ = run_both(study)
    rungs = read_rungs(scheduler)
    assert {rung: rungs[rung] for rung in rungs if rung in reference.rungs} == {
        rung: seen for rung, seen in reference.rungs.items() if rung in rungs
    }
    # Ray may leave out the rung at the last milestone, where all trials end anyway.
    assert set(reference.rungs) - set(rungs) <= {study["num_milestones"]}
    assert np.isfinite([value for seen in rungs.values() for value in seen]).all()


@given(report_orders())
def test_rungs_are_the_same_after_replay(study: dict[str, Any]) -> None:
    scheduler, _, reports = run_both(study)
    again = MilestoneASHA(study["stopping"], study["num_milestones"])
    again.replay(reports)
    assert read_rungs(again) == read_rungs(scheduler)


@given(report_orders(), st.data())
def test_trial_that_starts_again_is_judged_as_before(
    study: dict[str, Any], data: st.DataObject
) -> None:
    """Also after others came to its rungs, with better results; and it is recorded once."""
    scheduler, _, reports = run_both(study)
    stopping = study["stopping"]
    judge = SuccessiveHalving(
        stopping.reduction_factor, stopping.grace_milestones, study["num_milestones"]
    )
    expected = [judge.goes_on(event.report.milestone, event.report.objective) for event in reports]
    going_on = data.draw(st.sets(st.sampled_from(range(len(study["trials"])))))
    again = MilestoneASHA(stopping, study["num_milestones"])
    again.replay(reports, going_on)
    for event, goes_on in zip(reports, expected, strict=True):
        if event.number in going_on:
            trial: Any = make_trial(f"again-{event.number}", config={"number": event.number})
            result = {MILESTONE: event.report.milestone, OBJECTIVE: event.report.objective}
            decision = again.on_trial_result(None, trial, result)
            assert decision == (TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)
    assert read_rungs(again) == read_rungs(scheduler)


def test_successive_halving_by_hand() -> None:
    """Of five trials with η = 2, those below the median of their predecessors stop."""
    halving = SuccessiveHalving(reduction_factor=2, grace_milestones=1, num_milestones=4)
    assert list(halving.rungs) == [1, 2, 4]
    decisions = [halving.goes_on(1, objective) for objective in (0.5, 0.4, 0.45, 0.44, 0.9)]
    assert decisions == [True, False, True, False, True]
    assert halving.goes_on(3, 0.0)
    assert not halving.goes_on(4, 1.0)


@pytest.mark.parametrize("milestone", range(1, 4))
def test_failure_stops_at_once_and_leaves_no_trace(milestone: int) -> None:
    scheduler = MilestoneASHA(StoppingSpec(), 4)
    trial: Any = make_trial("id-0", config={"number": 0})
    scheduler.on_trial_add(make_controller(), trial)
    for earlier in range(1, milestone):
        scheduler.on_trial_result(None, trial, {MILESTONE: earlier, OBJECTIVE: 0.5})
    before = read_rungs(scheduler)
    # Tune keeps the keys of earlier results.
    failed = {**FAILED, MILESTONE: milestone}
    assert scheduler.on_trial_result(None, trial, failed) == TrialScheduler.STOP
    scheduler.on_trial_complete(None, trial, failed)
    assert read_rungs(scheduler) == before


def test_run_to_target_stops_failures_only() -> None:
    trial: Any = SimpleNamespace(trial_id="id-0")
    bad = {MILESTONE: 1, OBJECTIVE: -1.0}
    assert RunToTarget().on_trial_result(None, trial, bad) == TrialScheduler.CONTINUE
    assert RunToTarget().on_trial_result(None, trial, FAILED) == TrialScheduler.STOP


class RecordingLedger:
    """Stands for a ledger; writes down what it is told."""

    def __init__(self) -> None:
        self.ends: list[tuple[Any, ...]] = []

    def assign(self) -> Any:
        return None

    def end(self, *arguments: Any) -> None:
        self.ends.append(arguments)


def test_searcher_has_no_more_trials_once_the_ledger_has_none() -> None:
    ledger: Any = RecordingLedger()
    assert LedgerSearcher(ledger).suggest("id-0") == Searcher.FINISHED


def test_searcher_hands_out_what_the_cluster_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_adapters, "LOOK_S", 0.0)
    room = [1]
    ledger: Any = RecordingLedger()
    ledger.assign = lambda: Assignment(0, make_study().base)
    searcher = LedgerSearcher(ledger, lambda: room[0])
    handed_out = []
    for step in range(4):
        room[0] = (1, 1, 3, 3)[step]
        handed_out.append(searcher.suggest(f"id-{step}") is not None)
    assert handed_out == [True, False, True, True]
    searcher.on_trial_complete("id-0", {MILESTONE: 1})
    assert [searcher.suggest("a") is not None, searcher.suggest("b") is not None] == [True, False]


def test_searcher_goes_on_with_what_it_knew_while_the_cluster_does_not_answer() -> None:
    ledger: Any = RecordingLedger()
    ledger.assign = lambda: Assignment(0, make_study().base)
    searcher = LedgerSearcher(ledger, Mock(side_effect=RuntimeError("no answer")))
    assert searcher.suggest("id-0") is not None
    assert searcher.suggest("id-1") is None


def test_searcher_knows_only_the_trials_that_it_handed_out() -> None:
    ledger: Any = RecordingLedger()
    LedgerSearcher(ledger).on_trial_complete("another", {MILESTONE: 1}, error=False)
    assert ledger.ends == []


@pytest.mark.parametrize("adapter", [LedgerSearcher, LedgerCallback])
def test_tune_pickles_no_ledger(adapter: Any) -> None:
    """Tune snapshots its searcher and callbacks; observers hold threads and terminals."""
    ledger: Any = RecordingLedger()
    ledger.unpicklable = lambda: None
    assert b"RecordingLedger" not in pickle.dumps(adapter(ledger))


@pytest.mark.parametrize("scheduler", [MilestoneASHA(StoppingSpec(), 5), RunToTarget()])
def test_processes_of_trials_that_end_at_once_are_kept(scheduler: Any) -> None:
    controller = make_controller()
    for number in range(3):
        scheduler.on_trial_add(controller, make_trial(f"id-{number}"))
    cache = controller._tune_controller._actor_cache
    assert all(cache.cache_object("no cores", f"process {number}") for number in range(3))
    assert list(cache.flush_cached_objects()) == []
    assert cache.pop_cached_object("no cores") == "process 0"
    assert list(cache.flush_cached_objects(force_all=True)) == ["process 1", "process 2"]
    assert cache.pop_cached_object("no cores") is None


@pytest.mark.parametrize("patience_s", [60.0, 0.0])
def test_a_trial_waits_for_the_process_that_starts_for_it(
    patience_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TuneController, "_maybe_reuse_cached_actor", lambda self, trial: True)
    monkeypatch.setattr(PatientController, "patience_s", patience_s)
    scheduler, controller = RunToTarget(), make_controller()
    waiting, new = make_trial("waiting"), make_trial("new")
    scheduler.on_trial_add(controller, waiting)
    scheduler.on_trial_add(controller, new)
    tune = controller._tune_controller
    tune._trial_to_actor[waiting] = "starts"
    tune._actor_cache.cache_object("no cores", "process")
    assert tune._maybe_reuse_cached_actor(new)
    assert tune._maybe_reuse_cached_actor(waiting) is (patience_s == 0.0)


def test_tune_remembers_little_of_a_trial() -> None:
    scheduler, controller = RunToTarget(), make_controller()
    trial = make_trial("one", run_metadata=_TrainingRunMetadata())
    scheduler.on_trial_add(controller, trial)
    for value in (0.5, 0.7):
        trial.run_metadata.last_result = {REPORT: "long", OBJECTIVE: value}
        trial.run_metadata.update_metric(OBJECTIVE, value)
        controller._tune_controller._mark_trial_to_checkpoint(trial)
        assert trial.run_metadata.metric_analysis == trial.run_metadata.metric_n_steps == {}
        assert trial.run_metadata.last_result == {OBJECTIVE: value}
    assert not controller._tune_controller._trials_to_cache  # of which it keeps JSON
