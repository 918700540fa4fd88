"""A study from beginning to end: reference, trials, library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ray import tune

from distprune.core.retention import Reference
from distprune.errors import DistpruneError, StorageError
from distprune.library.history import Event, History, MilestoneReached
from distprune.library.leaderboard import Leaderboard
from distprune.library.study_folder import StudyFolder, locate_storage
from distprune.library.study_usage import record_shared
from distprune.methods.spec import PretrainedObjective
from distprune.search.answers import answer_from_store
from distprune.search.cluster import (
    check_resources,
    connect_cluster,
    count_concurrent,
    resolve_resources,
)
from distprune.search.doctor import check_cluster
from distprune.search.driver_lease import drive_study
from distprune.search.ledger import Ledger
from distprune.search.objective import find_comparable, open_objective
from distprune.search.proposals import Proposer
from distprune.search.spec import ResourcesSpec
from distprune.search.stage_broker import RayExecutor, ask_precision, start_broker
from distprune.search.study_file import Study
from distprune.search.study_results import write_results
from distprune.search.study_state import describe_continuation, open_study, pin_inputs
from distprune.search.trainable import TrialSurroundings, walk_trial
from distprune.search.tune_adapters import (
    TRIAL_RETRIES,
    LedgerCallback,
    LedgerSearcher,
    MilestoneASHA,
    RunToTarget,
)
from distprune.store.failure import storage_failures
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

    def on_change(self, text: str) -> None:
        """Hear of a setting that changed since the study's last session."""

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
        ship_code: Send this installation's distprune to the workers of the cluster.
    """

    study: Study
    folder: StudyFolder
    observers: Sequence[StudyObserver] = ()
    address: str | None = None
    fresh: bool = False
    verbose: bool = False
    ship_code: bool = False

    def notify_phase(self, text: str) -> None:
        """Tell all observers what comes next."""
        for observer in self.observers:
            observer.on_phase(text)

    def notify_changes(self, changes: Sequence[str]) -> None:
        """Tell all observers what of the study file is not as it was."""
        for observer in self.observers:
            for change in changes:
                observer.on_change(change)


def run_study(session: Session) -> Leaderboard:
    """Search until all trials have ended, then write the library of masks.

    A study that was interrupted goes on: ended trials stay ended, the others replay what is stored.

    Raises:
        InputError: The study, its data or its storage cannot be used; nothing was trained.
        StudyFailedError: The dense model is useless, or no trial reached a milestone.
    """
    study, folder = session.study, session.folder
    with drive_study(folder, session.notify_phase) as drive:
        changes = () if session.fresh else describe_continuation(study, folder)
        study_id = open_study(study, folder, session.fresh)
        session.notify_changes(changes)
        drive.save()
        store = folder.open_store()
        store.check_writable()
        session.notify_phase("Reading checkpoint and data")
        store.remove_stale_temporaries()
        context = resolve_study(study, store)
        objective = open_objective(study, folder, context)
        session.notify_phase("Starting Ray")
        with connect_cluster(session.address, session.verbose, session.ship_code):
            resources = resolve_resources(study.spec.resources)
            check_resources(resources)
            if session.address is not None:
                session.notify_phase("Examining the cluster")
                check_cluster(study, store, context.checkpoint)
            context = replace(context, precision=ask_precision(study.base.precision, resources))
            pin_inputs(folder, context)
            executor = RayExecutor(start_broker(store, resources), store)
            stages = TrialStages(study.base, context, store, executor)
            session.notify_phase("Fine-tuning the dense model")
            _, reference = measure_reference(stages)
            share_probe(study, stages)
            surroundings = TrialSurroundings(
                context, reference, study.milestones, objective, store, executor.broker
            )
            shared = record_shared(folder.shared_stages, stages.log.take())
            start = StudyStart(study_id, context, reference, shared)
            drive.save()
            ledger = _open_ledger(session, start, surroundings, drive.open_history())
            _run_trials(session, ledger, surroundings, resources)
            session.notify_phase("Evaluating the best masks on the report split")
            leaderboard = write_results(study, folder, ledger.trials, stages, reference)
        store.remove_stale_temporaries()  # of workers that were killed
        drive.save()
        return leaderboard


def resolve_study(study: Study, store: Store) -> TrialContext:
    """Prepare the data and look at the checkpoint, and refuse what any trial of a study cannot use.

    Raises:
        InputError: Checkpoint, data or a setting cannot be used.
    """
    context = resolve_context(study.base, store, study.rewinding_points, uses_gpu=False)
    check_pruning(study.base.pruning, context)
    for values in study.pairs_of_probes():
        check_pruning(study.make_trial(values).pruning, context)
    return context


def share_probe(study: Study, stages: TrialStages) -> None:
    """Train the probe before the trials begin, with all cores of a node, if any can ask for it."""
    for values in study.pairs_of_probes():
        trial = replace(stages, spec=study.make_trial(values))
        pruning = trial.spec.pruning
        is_scored = pruning.sources[0] and pruning.importance.criterion.needs_data
        if is_scored and trial.pretrained_objective is PretrainedObjective.TASK_PROBE:
            trial.probe()
            return


def _open_ledger(
    session: Session, start: StudyStart, surroundings: TrialSurroundings, history: History
) -> Ledger:
    """Open the history, and tell the observers what earlier sessions have done."""
    study, folder = session.study, session.folder
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
    study, folder = session.study, session.folder
    num_left = study.spec.num_trials - sum(1 for r in ledger.trials.values() if r.end is not None)
    if num_left <= 0:
        return
    comparable = find_comparable(
        surroundings.objective, study.milestones, surroundings.context.shape, study.base.pruning
    )
    tune_config = tune.TuneConfig(
        search_alg=LedgerSearcher(ledger, partial(count_concurrent, resources)),
        scheduler=_make_scheduler(study, ledger, comparable),
        num_samples=num_left,
        reuse_actors=True,
        trial_name_creator=_name_trial,
        trial_dirname_creator=_name_trial,
    )
    run_config = tune.RunConfig(
        name="session",
        storage_path=str(folder.ray.resolve()),
        callbacks=[LedgerCallback(ledger)],
        failure_config=tune.FailureConfig(max_failures=TRIAL_RETRIES),
        verbose=0,
    )
    trainable = tune.with_resources(
        tune.with_parameters(walk_trial, surroundings=surroundings),
        {"cpu": 0, "memory": resources.trial_memory_mib << 20},
    )
    try:
        tune.Tuner(trainable, tune_config=tune_config, run_config=run_config).fit()
    except Exception as error:
        own = find_own_error(error) or find_storage_error(error, str(folder.root))
        raise (own or error) from None


def find_own_error(error: BaseException | None) -> DistpruneError | None:
    """Return the first of our own errors in a chain of causes; Tune wraps what its hooks raise."""
    return next((link for link in _follow(error) if isinstance(link, DistpruneError)), None)


def find_storage_error(error: BaseException | None, root: str) -> StorageError | None:
    """Return in our own words what Tune's files met, if that is in a chain of causes."""
    for link in _follow(error):
        try:
            if isinstance(link, OSError):
                with storage_failures(root, "write files of Ray Tune"):
                    raise link
        except StorageError as own:
            return own
        except OSError:
            continue
    return None


def _follow(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
    unended = {number for number, record in ledger.trials.items() if record.end is None}
    scheduler.replay(
        (event for event in ledger.history.events() if isinstance(event, MilestoneReached)), unended
    )
    return scheduler


def study_folder(study: Study, base: Path | None = None) -> StudyFolder:
    """Return the folder of a study; relative storage is below `base` or the working folder."""
    return locate_storage(study.spec.storage, base).find_study(study.spec.name)
