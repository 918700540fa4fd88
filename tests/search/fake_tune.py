"""Ray Tune's controller without Ray: it calls searcher, scheduler and callback in Tune's order.

`test_tune.py` runs the same study through Ray itself.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.utils import flatten_dict
from ray.tune.utils.object_cache import _ObjectCache

from distprune.search.ledger import Ledger
from distprune.search.study_file import Study
from distprune.search.tune_adapters import LedgerCallback, LedgerSearcher
from tests.search.synthetic import collect_results

Choose = Callable[[int], int]
"""Chooses which of n running trials reports next."""


def run_trials(
    study: Study,
    ledger: Ledger,
    scheduler: TrialScheduler,
    concurrency: int = 1,
    choose: Choose = lambda count: 0,
) -> None:
    """Run a study's trials to their ends."""
    searcher, callback = LedgerSearcher(ledger), LedgerCallback(ledger)
    controller = make_controller()
    running: list[SimpleNamespace] = []
    num_started = 0
    while True:
        while len(running) < concurrency:
            config = searcher.suggest(f"id-{num_started}")
            if config == Searcher.FINISHED:
                break
            results = collect_results(config, study)
            trial = make_trial(f"id-{num_started}", config=config, results=results)
            scheduler.on_trial_add(controller, trial)
            running.append(trial)
            num_started += 1
        if not running:
            return
        trial = running[choose(len(running))]
        if not process_result(trial, trial.results.pop(0), scheduler, searcher, callback):
            running.remove(trial)


def process_result(
    trial: Any,
    result: dict[str, Any],
    scheduler: TrialScheduler,
    searcher: LedgerSearcher,
    callback: LedgerCallback,
) -> bool:
    """Process one report as `TuneController._process_trial_result` does; say if it goes on."""
    flat = flatten_dict(result)
    decision = scheduler.on_trial_result(None, trial, flat)
    if decision != TrialScheduler.STOP:
        searcher.on_trial_result(trial.trial_id, flat)
    callback.on_trial_result(0, [], trial, result)
    if decision != TrialScheduler.STOP and trial.results:
        return True
    scheduler.on_trial_complete(None, trial, flat)
    searcher.on_trial_complete(trial.trial_id, flat)
    return False


class FakeTrial(SimpleNamespace):
    """A trial that can be a key, as Tune's are."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


class FakeActorManager:
    """What of Tune's actor manager is changed: its class."""


class FakeController:
    """What of Tune's controller our schedulers look at and change."""

    def __init__(self) -> None:
        self._actor_cache: Any = _ObjectCache(may_keep_one=True)
        self._actor_manager = FakeActorManager()
        self._trial_to_actor: dict[Any, Any] = {}
        self._trials_to_cache: set[Any] = set()


def make_controller() -> SimpleNamespace:
    """Make what a scheduler is given as Tune's controller."""
    return SimpleNamespace(_tune_controller=FakeController())


def make_trial(trial_id: str, **values: Any) -> SimpleNamespace:
    """Make a trial as Tune hands it to schedulers."""
    return FakeTrial(trial_id=trial_id, placement_group_factory="no cores", **values)
