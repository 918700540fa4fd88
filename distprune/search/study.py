"""A study from beginning to end: reference, trials, library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ray import tune

from distprune.core.retention import Reference
from distprune.errors import DistpruneError
from distprune.library.history import Event, History, MilestoneReached
from distprune.library.leaderboard import Leaderboard
from distprune.library.study_folder import StudyFolder
from distprune.library.study_usage import record_shared
from distprune.methods.spec import PretrainedObjective
from distprune.search.answers import answer_from_store
from distprune.search.cluster import (
    check_resources,
    connect_cluster,
    count_concurrent,
    resolve_resources,
)
from distprune.search.driver_lease import hold_study
from distprune.search.ledger import Ledger
from distprune.search.objective import find_comparable, open_objective
from distprune.search.proposals import Proposer
from distprune.search.spec import ResourcesSpec
from distprune.search.stage_broker import RayExecutor, ask_precision, start_broker
from distprune.search.study_file import Study
from distprune.search.study_results import write_results
from distprune.search.study_state import open_study, pin_inputs
from distprune.search.trainable import TrialSurroundings, walk_trial
from distprune.search.tune_adapters import (
    LedgerCallback,
    LedgerSearcher,
    MilestoneASHA,
    RunToTarget,
)
from distprune.store.store import Store
from distprune.trial.context import TrialContext
from distprune.trial.resolve import check_pruning, measure_reference, resolve_context
from distprune.trial.stages import TrialStages
from distprune.trial.usage import StageUse


@dataclass(frozen=True)
class StudyStart:
    """What is known once the reference is measured and before the first trial."""

    study_id: str
    context: TrialContext
    reference: Reference
    shared: tuple[StageUse, ...]
    """Stages that the driver ran for all trials, in this session or an earlier one."""
    num_stored: int = 0
    """Trials that an earlier session has ended."""


class StudyObserver(Protocol):
    """Watches a study; the command line shows it, the tracker sends it on."""

    def on_phase(self, text: str) -> None:
        """Hear what the study does next."""

    def on_start(self, start: StudyStart) -> None:
        """Hear that the trials begin."""

    def on_event(self, event: Event) -> None:
        """Hear of an event of the history; those of earlier sessions come first."""


@dataclass(frozen=True)
class Session:
    """One run of the driver on a study.

    Attributes:
        study: The checked study file.
        folder: Where the study is kept.
        observers: Who watches.
        address: Address of a Ray cluster; None starts one on this machine.
        fresh: Set an existing study of the name aside.
        verbose: Let Ray's and the workers' output through.
    """

    study: Study
    folder: StudyFolder
    observers: Sequence[StudyObserver] = ()
    address: str | None = None
    fresh: bool = False
    verbose: bool = False

    def notify_phase(self, text: str) -> None:
        """Tell all observers what comes next."""
        for observer in self.observers:
            observer.on_phase(text)


def run_study(session: Session) -> Leaderboard:
    """Search until all trials have ended, then write the library of masks.

    A study that was interrupted goes on: ended trials stay ended, the others replay what is stored.

    Raises:
        InputError: The study, its data or its storage cannot be used; nothing was trained.
        StudyFailedError: The dense model is useless, or no trial reached a milestone.
    """
    study, folder = session.study, session.folder
    with hold_study(folder.lease, folder.name):
        study_id = open_study(study, folder, session.fresh)
        store = Store(str(folder.store))
        store.check_writable()
        session.notify_phase("Reading checkpoint and data")
        store.remove_stale_temporaries()
        context = _resolve(study, store)
        objective = open_objective(study, folder, context)
        session.notify_phase("Starting Ray")
        with connect_cluster(session.address, session.verbose):
            resources = resolve_resources(study.spec.resources)
            check_resources(resources)
            context = replace(context, precision=ask_precision(study.base.precision, resources))
            pin_inputs(folder, context)
            executor = RayExecutor(start_broker(store, resources), store)
            stages = TrialStages(study.base, context, store, executor)
            session.notify_phase("Fine-tuning the dense model")
            _, reference = measure_reference(stages)
            _share_probe(study, stages)
            surroundings = TrialSurroundings(
                context, reference, study.milestones, objective, store, executor.broker
            )
            shared = record_shared(folder.shared_stages, stages.log.take())
            start = StudyStart(study_id, context, reference, shared)
            ledger = _open_ledger(session, start, surroundings)
            _run_trials(session, ledger, surroundings, resources)
            session.notify_phase("Evaluating the best masks on the report split")
            return write_results(study, folder, ledger.trials, stages, reference)


def _resolve(study: Study, store: Store) -> TrialContext:
    context = resolve_context(study.base, store, study.rewinding_points, uses_gpu=False)
    check_pruning(study.base.pruning, context)
    for values in study.pairs_of_probes():
        check_pruning(study.make_trial(values).pruning, context)
    return context


def _share_probe(study: Study, stages: TrialStages) -> None:
    """Train the probe before the trials begin, with all cores of a node, if any can ask for it."""
    for values in study.pairs_of_probes():
        trial = replace(stages, spec=study.make_trial(values))
        pruning = trial.spec.pruning
        is_scored = pruning.sources[0] and pruning.importance.criterion.needs_data
        if is_scored and trial.pretrained_objective is PretrainedObjective.TASK_PROBE:
            trial.probe()
            return


def _open_ledger(session: Session, start: StudyStart, surroundings: TrialSurroundings) -> Ledger:
    """Open the history, and tell the observers what earlier sessions have done."""
    study, folder = session.study, session.folder
    history = History(folder.history)
    ledger = Ledger(
        num_trials=study.spec.num_trials,
        num_milestones=len(study.milestones),
        history=history,
        proposer=Proposer(study, folder.optuna_journal),
        observers=[observer.on_event for observer in session.observers],
        answer=partial(answer_from_store, surroundings=surroundings),
    )
    num_stored = sum(1 for record in ledger.trials.values() if record.end is not None)
    for observer in session.observers:
        observer.on_start(replace(start, num_stored=num_stored))
        for event in history.events():
            observer.on_event(event)
    return ledger


def _run_trials(
    session: Session, ledger: Ledger, surroundings: TrialSurroundings, resources: ResourcesSpec
) -> None:
    study = session.study
    num_left = study.spec.num_trials - sum(1 for r in ledger.trials.values() if r.end is not None)
    if num_left <= 0:
        return
    comparable = find_comparable(
        surroundings.objective, study.milestones, surroundings.context.shape, study.base.pruning
    )
    trainable = tune.with_resources(
        tune.with_parameters(walk_trial, surroundings=surroundings),
        {"cpu": 0, "memory": resources.trial_memory_mib << 20},
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearcher(ledger),
            scheduler=_make_scheduler(study, ledger, comparable),
            num_samples=num_left,
            max_concurrent_trials=count_concurrent(resources),
            reuse_actors=True,
            trial_name_creator=_name_trial,
            trial_dirname_creator=_name_trial,
        ),
        run_config=tune.RunConfig(
            name="session",
            storage_path=str(session.folder.ray.resolve()),
            callbacks=[LedgerCallback(ledger)],
            failure_config=tune.FailureConfig(max_failures=3),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        raise (find_own_error(error) or error) from None


def find_own_error(error: BaseException | None) -> DistpruneError | None:
    """Return the first of our own errors in a chain of causes; Tune wraps what its hooks raise."""
    while error is not None:
        if isinstance(error, DistpruneError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _name_trial(trial: Any) -> str:
    return f"trial-{trial.config['number']:04d}"


def _make_scheduler(study: Study, ledger: Ledger, comparable: int = 1) -> Any:
    """Return what stops trials, none of them before the milestone `comparable`."""
    if study.spec.stopping is None:
        return RunToTarget()
    grace = max(study.spec.stopping.grace_milestones, comparable)
    stopping = study.spec.stopping.model_copy(update={"grace_milestones": grace})
    scheduler = MilestoneASHA(stopping, len(study.milestones))
    ledger.on_answered = scheduler.replay
    ended = {number for number, record in ledger.trials.items() if record.end is not None}
    scheduler.replay(
        event
        for event in ledger.history.events()
        if isinstance(event, MilestoneReached) and event.number in ended
    )
    return scheduler


def study_folder(study: Study, base: Path | None = None) -> StudyFolder:
    """Return the folder of a study; relative storage is below `base` or the working folder."""
    storage = Path(study.spec.storage).expanduser()
    return StudyFolder(((base or Path.cwd()) / storage).resolve(), study.spec.name)
