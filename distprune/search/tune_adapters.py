"""Ray Tune's hooks, each a thin adapter to the ledger, and ASHA over milestones."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.utils.object_cache import _ObjectCache

from distprune.errors import StorageError
from distprune.library.history import MilestoneReached, Outcome
from distprune.search.cluster import list_nodes
from distprune.search.ledger import Ledger
from distprune.search.node_losses import NodeLosses
from distprune.search.spec import StoppingSpec
from distprune.trial.results import MilestoneReport

logger = logging.getLogger(__name__)

MILESTONE = "milestone"
OBJECTIVE = "objective"
REPORT = "report"
FAILURE = "failure"
ABORT = "abort"
"""Keys of what a trial reports to Tune.

Reports and settings travel as JSON text: of each number in a nested value Tune keeps statistics,
for each trial, to the end of the study.
"""

TRIAL_RETRIES = 3
"""How often a trial starts again whose process has crashed. What was lost with a node starts again
however often that happens."""

LOOK_S = 5.0
"""Seconds between two looks of the driver at the cluster."""


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """Hands the ledger's trials to Tune, and Tune's endings to the ledger.

    Args:
        ledger: The study's ledger.
        count_concurrent: Tells how many trials may run at a time, as the cluster is now.
    """

    def __init__(
        self, ledger: Ledger, count_concurrent: Callable[[], int] = lambda: sys.maxsize
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._ledger = ledger
        self._numbers: dict[str, int] = {}
        self._count_concurrent = count_concurrent
        self._concurrent = 1
        self._looked = -math.inf

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's number and settings; None = not now."""
        if len(self._numbers) >= self._look():
            return None
        assignment = self._ledger.assign()
        if assignment is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = assignment.number
        return {"number": assignment.number, "spec": assignment.spec.model_dump_json()}

    def _look(self) -> int:
        """Return how many trials may run at a time; Tune asks many times a second."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._looked = time.monotonic()
            try:
                self._concurrent = self._count_concurrent()
            except (RayError, RuntimeError, OSError) as error:
                logger.warning("the cluster does not tell what it has: %s", error)
        return self._concurrent

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
    """Tune's controller, that starts few processes, remembers little, and forgives lost nodes.

    Tune keeps one process at most, and gives it to a trial whose own process is just starting; it
    kills that one, and starts another for the trial after it. So where trials are shorter than the
    start of a process, it starts one in vain for each of them.
    """

    patience_s = 10.0
    """How long a kept process waits for a trial without one. Longer than a start takes, and not for
    ever: what starts may wait for the memory of the one that is kept."""

    _losses: NodeLosses
    _crashes: dict[str, list[float]]
    _looked: float

    def become_patient(self) -> None:
        """Set what `__init__` would: Tune has made the controller, and its class is changed."""
        self._actor_cache = ProcessCache()
        self._actor_manager.__class__ = LenientActorManager
        # By default one trial starts after the other; the searcher says how many there may be.
        self._max_pending_trials = sys.maxsize
        # What becomes of a trial is in the history; here it would be told once for each retry.
        self._print_trial_errors = False
        self._losses = NodeLosses()
        self._crashes = {}
        self._looked = -math.inf

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Write Tune's state at the end only, when Tune looks for the file.

        A study goes on from its history; what Tune writes on the way can only fail, and is large.
        """
        if force:
            super().checkpoint(force=force, wait=wait)

    def on_step_begin(self) -> None:
        """Notice lost nodes."""
        super().on_step_begin()
        if time.monotonic() - self._looked >= LOOK_S:
            self._look()

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            self._losses.look(list_nodes(), self._looked)
        except (RayError, RuntimeError, OSError) as error:
            logger.warning("the cluster does not tell its nodes: %s", error)

    def _actor_failed(self, tracked_actor: Any, exception: Exception) -> None:
        """Let a process die that no trial has any more."""
        if tracked_actor in self._actor_to_trial:
            super()._actor_failed(tracked_actor, exception)
        else:
            self._actor_stopped(tracked_actor)

    def _process_trial_failure(self, trial: Any, exception: Exception) -> None:
        """Start a trial again whose process died, unless it has crashed too often.

        What dies with its node is not counted. Nor is a kept process that was dead already when a
        trial got it: Tune tells of that twice, and would go on waiting for it.
        """
        was_kept = trial in self._resetting_trials
        self._resetting_trials.discard(trial)
        if isinstance(exception, RayActorError) and trial.status == Trial.PENDING:
            return
        crashes = self._crashes.setdefault(trial.trial_id, [])
        if not (was_kept or isinstance(exception, ActorUnavailableError)):
            crashes.append(time.monotonic())
        self._look()
        counted = [when for when in crashes if not self._losses.explains(when)]
        trial.run_metadata.num_failures = len(counted) - 1  # Tune counts this one itself
        super()._process_trial_failure(trial, exception)

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


class LenientActorManager(RayActorManager):  # type: ignore[misc]
    """Takes a report that was lost with its node for the loss of the process that sent it.

    Tune would end the search: it knows errors of trials and deaths of processes only.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(
            exception, RayActorError | RayTaskError
        ):
            exception = ActorUnavailableError(str(exception), None)
        super()._actor_task_failed(tracked_actor_task, exception)


class KeepsProcesses(TrialScheduler):  # type: ignore[misc]
    """A scheduler that makes Tune's controller a patient one, for which Tune has no setting."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Change the controller with the first trial."""
        controller = tune_controller._tune_controller
        if not isinstance(controller, PatientController):
            controller.__class__ = PatientController
            controller.become_patient()
        super().on_trial_add(tune_controller, trial)


class MilestoneASHA(KeepsProcesses, ASHAScheduler):  # type: ignore[misc]
    """ASHA with milestones as its time, one bracket, and rungs that outlive the driver.

    A report is judged once. A trial that starts again reports again, when others may have come to
    its rungs; what was decided then is decided again.
    """

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
        self._decisions: dict[int, dict[int, str]] = {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial that failed or diverged; it never reaches a rung. Else let ASHA decide."""
        if f"{FAILURE}/outcome" in result:
            return str(TrialScheduler.STOP)
        if ABORT in result or MILESTONE not in result:
            return str(TrialScheduler.CONTINUE)
        return self._decide(trial.config["number"], result[MILESTONE], result[OBJECTIVE])

    def _decide(self, number: int, milestone: int, objective: float) -> str:
        """Return whether trial `number` of the study stops at a milestone."""
        decisions = self._decisions.setdefault(number, {})
        if milestone not in decisions:
            # At the last milestone a trial ends unrecorded.
            decisions[milestone] = str(
                TrialScheduler.STOP
                if milestone >= self._max_t
                else self._brackets[0].on_result(
                    SimpleNamespace(trial_id=number), milestone, objective
                )
            )
        return decisions[milestone]

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Forget the trial; what it reported is in the rungs already."""
        self._trial_info.pop(trial.trial_id, None)
        self._decisions.pop(trial.config["number"], None)

    def replay(self, reports: Iterable[MilestoneReached], going_on: Collection[int] = ()) -> None:
        """Fill the rungs with reports that Tune did not see or will see again, in order.

        These are the reports of earlier sessions (Ray does not save rungs, ray#30838), and those of
        trials that were answered from the store.

        Args:
            reports: The reports.
            going_on: Trials that were interrupted, and report again.
        """
        for event in reports:
            self._decide(event.number, event.report.milestone, event.report.objective)
            if event.number not in going_on:
                del self._decisions[event.number]


class RunToTarget(KeepsProcesses, FIFOScheduler):  # type: ignore[misc]
    """Stops no trial, but those that failed or diverged."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial that failed or diverged."""
        return str(
            TrialScheduler.STOP if f"{FAILURE}/outcome" in result else TrialScheduler.CONTINUE
        )

    def replay(self, reports: Iterable[MilestoneReached], going_on: Collection[int] = ()) -> None:
        """Do nothing: there are no rungs."""
