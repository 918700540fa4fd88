"""Ray Tune's hooks, each a thin adapter to the ledger, and ASHA over milestones."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.utils.object_cache import _ObjectCache

from distprune.errors import StorageError
from distprune.library.history import MilestoneReached, Outcome
from distprune.search.ledger import Ledger
from distprune.search.spec import StoppingSpec
from distprune.trial.results import MilestoneReport

MILESTONE = "milestone"
OBJECTIVE = "objective"
REPORT = "report"
FAILURE = "failure"
ABORT = "abort"
"""Keys of what a trial reports to Tune.

Reports and settings travel as JSON text: of each number in a nested value Tune keeps statistics,
for each trial, to the end of the study.
"""


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """Hands the ledger's trials to Tune, and Tune's endings to the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._ledger = ledger
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's number and settings."""
        assignment = self._ledger.assign()
        if assignment is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = assignment.number
        return {"number": assignment.number, "spec": assignment.spec.model_dump_json()}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record how the trial ended."""
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        failure = (result or {}).get(f"{FAILURE}/outcome")
        if failure:
            message = (result or {})[f"{FAILURE}/message"]
            self._ledger.end(number, Outcome(failure), message)
        elif error:
            self._ledger.end(number, Outcome.FAILED, "the trial's process died again and again")
        else:
            self._ledger.end(number)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the ledger out of what Tune pickles; the history and the journal are the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write nothing; see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing; see `__getstate__`."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Write nothing; see `__getstate__`."""


class LedgerCallback(tune.Callback):  # type: ignore[misc]
    """Records every report; unlike a searcher it hears the one at which a trial is stopped, too."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getstate__(self) -> dict[str, Any]:
        """Leave the ledger out of what Tune pickles."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record a milestone.

        Raises:
            StorageError: The trial met a full or failing disk. That ends the search, and leaves the
                trial unended, so that it goes on when the search is started again.
        """
        if ABORT in result:
            raise StorageError(result[ABORT])
        if REPORT in result:
            report = MilestoneReport.from_json(json.loads(result[REPORT]))
            self._ledger.report(trial.config["number"], report)


class ProcessCache(_ObjectCache):  # type: ignore[misc]
    """Keeps the process of each trial that ends for the next one, however many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.last_cached = -math.inf

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keep a process."""
        self.last_cached = time.monotonic()
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        """Give up all processes at the end, and none before."""
        return super().flush_cached_objects(force_all=True) if force_all else iter(())


class PatientController(TuneController):  # type: ignore[misc]
    """Tune's controller, that starts few processes and remembers little of each trial.

    Tune keeps one process at most, and gives it to a trial whose own process is just starting; it
    kills that one, and starts another for the trial after it. So where trials are shorter than the
    start of a process, it starts one in vain for each of them.
    """

    patience_s = 10.0
    """How long a kept process waits for a trial without one. Longer than a start takes, and not for
    ever: what starts may wait for the memory of the one that is kept."""

    def _mark_trial_to_checkpoint(self, trial: Any) -> None:
        """Keep no state of a trial for Tune to restart from, and nothing of what it reported.

        Tune would keep both to the end of the study. A study goes on from its history.
        """
        known = trial.run_metadata
        known.metric_analysis.clear()
        known.metric_n_steps.clear()
        known.last_result.pop(REPORT, None)

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        """Give a trial a kept process, unless its own is starting."""
        waited_s = time.monotonic() - self._actor_cache.last_cached
        if trial in self._trial_to_actor and waited_s < self.patience_s:
            return False
        return bool(super()._maybe_reuse_cached_actor(trial))


class KeepsProcesses(TrialScheduler):  # type: ignore[misc]
    """A scheduler that makes Tune's controller a patient one, for which Tune has no setting."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Change the controller with the first trial."""
        controller = tune_controller._tune_controller
        if not isinstance(controller, PatientController):
            controller.__class__ = PatientController
            controller._actor_cache = ProcessCache()
        super().on_trial_add(tune_controller, trial)


class MilestoneASHA(KeepsProcesses, ASHAScheduler):  # type: ignore[misc]
    """ASHA with milestones as its time, one bracket, and rungs that outlive the driver."""

    def __init__(self, stopping: StoppingSpec, num_milestones: int) -> None:
        super().__init__(
            time_attr=MILESTONE,
            metric=OBJECTIVE,
            mode="max",
            max_t=num_milestones,
            grace_period=min(stopping.grace_milestones, num_milestones),
            reduction_factor=stopping.reduction_factor,
            brackets=1,
        )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial that failed or diverged; it never reaches a rung. Else let ASHA decide."""
        if f"{FAILURE}/outcome" in result:
            return str(TrialScheduler.STOP)
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Forget the trial; what it reported is in the rungs already."""
        self._trial_info.pop(trial.trial_id, None)

    def replay(self, reports: Iterable[MilestoneReached]) -> None:
        """Fill the rungs with reports of trials that Tune does not run, in order.

        These are the trials that ended in an earlier session (Ray does not save rungs, ray#30838),
        and those answered from the store. At the last milestone ASHA ends a trial unrecorded.
        """
        for event in reports:
            if event.report.milestone < self._max_t:
                trial = SimpleNamespace(trial_id=f"recorded-{event.number}")
                self._brackets[0].on_result(trial, event.report.milestone, event.report.objective)


class RunToTarget(KeepsProcesses, FIFOScheduler):  # type: ignore[misc]
    """Stops no trial, but those that failed or diverged."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial that failed or diverged."""
        return str(
            TrialScheduler.STOP if f"{FAILURE}/outcome" in result else TrialScheduler.CONTINUE
        )

    def replay(self, reports: Iterable[MilestoneReached]) -> None:
        """Do nothing: there are no rungs."""
