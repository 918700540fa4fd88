"""Mask transfer: masks that were found on one task, trained and measured on others, on Ray.

As in the thesis (Achlatis 2021, NTUA; our reconstruction), which uses masks across domains. Each
cell is set against a random mask of the same size on the same task with the same seed, so that it
says what the choice of units is worth, and not what the size costs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Protocol

from distprune.core.controls import draw_random_mask
from distprune.core.cost import measure_sparsities
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import DivergedTrialError
from distprune.library.transfer_table import (
    TransferCell,
    TransferColumn,
    TransferRow,
    TransferTable,
)
from distprune.search.spec import ResourcesSpec
from distprune.search.stage_session import StageSession, open_stage_session
from distprune.store.store import Store
from distprune.tasks.spec import TaskSpec
from distprune.trial.context import TrialContext
from distprune.trial.downstream import (
    TrainedTicket,
    at_seed,
    check_mask,
    measure_dense,
    parse_rewinding,
    train_ticket,
)
from distprune.trial.resolve import check_pruning, resolve_context
from distprune.trial.results import LevelResult
from distprune.trial.runner import run_trial
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import TrialStages
from distprune.trial.usage import StageLog

SPLITS = ("report",)
"""A transfer decides nothing, so it looks at the final figures only."""


@dataclass(frozen=True)
class NamedMask:
    """A mask of the table.

    Attributes:
        name: What it is called.
        mask: The mask.
        home: Name of the task that it was found on; None = none of the table's.
        rewinding: Fraction of the dense fine-tuning that its tickets are trained from.
    """

    name: str
    mask: Mask
    home: str | None
    rewinding: float


@dataclass(frozen=True)
class Transfer:
    """What to measure.

    Attributes:
        spec: Settings of every training; its task is replaced. Its seed is that of the trials that
            find masks; the replicates have the seeds after it.
        tasks: The tasks by name.
        masks: The masks; none = each task's own, found by one trial of `spec` on it.
        num_seeds: Replicates.
        milestone: Sparsity that the masks were chosen at, if known.
    """

    spec: TrialSpec
    tasks: Mapping[str, TaskSpec]
    masks: tuple[NamedMask, ...]
    num_seeds: int
    milestone: float | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the replicates; none of them has found a mask."""
        return tuple(self.spec.seed + 1 + number for number in range(self.num_seeds))

    @property
    def rewinding_points(self) -> tuple[float, ...]:
        """Fractions of the dense fine-tuning that any ticket is trained from."""
        own = () if self.masks else (parse_rewinding(self.spec.pruning.rewinding),)
        return tuple(sorted({*own, *(mask.rewinding for mask in self.masks)}))


class TransferObserver(Protocol):
    """Watches a transfer."""

    def on_phase(self, text: str) -> None:
        """Hear what comes next."""

    def on_begin(self, text: str, total: int) -> None:
        """Hear that so many jobs begin."""

    def on_done(self, text: str) -> None:
        """Hear of a job that is done."""


@dataclass(frozen=True)
class TransferSurroundings:
    """Where a transfer computes.

    Attributes:
        store: Path or URI of the stage store.
        resources: What a stage may use.
        address: Address of a Ray cluster; None starts one on this machine.
        verbose: Let Ray's and the workers' output through.
    """

    store: str
    resources: ResourcesSpec
    address: str | None = None
    verbose: bool = False


def run_transfer(
    transfer: Transfer, surroundings: TransferSurroundings, observer: TransferObserver
) -> tuple[TransferTable, tuple[NamedMask, ...]]:
    """Fill the table, and return it with its masks; what is stored already is not computed again.

    Raises:
        InputError: Checkpoint, a task or a mask cannot be used; nothing was trained.
        DivergedTrialError: A metric is not finite; the message says whose.
    """
    store = Store(surroundings.store)
    store.check_writable()
    observer.on_phase("Reading checkpoint and data")
    store.remove_stale_temporaries()
    contexts = _resolve(transfer, store)
    observer.on_phase("Starting Ray")
    with open_stage_session(
        store, surroundings.resources, surroundings.address, surroundings.verbose
    ) as session:
        precision = session.resolve_precision(transfer.spec.precision)
        stages = {
            name: TrialStages(
                _on_task(transfer, name),
                replace(context, precision=precision),
                store,
                session.executor,
            )
            for name, context in contexts.items()
        }
        masks = transfer.masks or _find_masks(stages, session, observer)
        return _fill(transfer, masks, stages, session, observer), masks


def _resolve(transfer: Transfer, store: Store) -> dict[str, TrialContext]:
    contexts = {}
    for name in transfer.tasks:
        spec = _on_task(transfer, name)
        context = resolve_context(spec, store, transfer.rewinding_points, uses_gpu=False)
        if not transfer.masks:
            check_pruning(spec.pruning, context)
        for mask in transfer.masks:
            check_mask(mask.mask, context.checkpoint, f"mask {mask.name!r}")
        contexts[name] = context
    return contexts


def _on_task(transfer: Transfer, name: str) -> TrialSpec:
    return transfer.spec.model_copy(update={"task": transfer.tasks[name]})


def _find_masks(
    stages: Mapping[str, TrialStages], session: StageSession, observer: TransferObserver
) -> tuple[NamedMask, ...]:
    """Run one trial on each task, and return the mask of its last level."""
    observer.on_begin("Finding a mask on each task", len(stages))
    names = list(stages)
    found: dict[str, NamedMask] = {}
    jobs = [partial(_find_mask, name, stages[name]) for name in names]
    for number, mask in session.run(jobs):
        found[names[number]] = mask
        observer.on_done(f"mask of {names[number]} found")
    return tuple(found[name] for name in names)


def _find_mask(name: str, stages: TrialStages) -> NamedMask:
    own = replace(stages, log=StageLog())
    try:
        *_, last = run_trial(own)
    except DivergedTrialError as error:
        raise DivergedTrialError(f"the trial on task {name!r}: {error}") from error
    mask = last.mask.with_metadata(_describe(last, own))
    return NamedMask(name, mask, name, parse_rewinding(own.spec.pruning.rewinding))


def _describe(result: LevelResult, stages: TrialStages) -> dict[str, Any]:
    """Return what the file of a mask says that was found here."""
    checkpoint = stages.context.checkpoint
    sparsities = measure_sparsities(stages.shape, result.mask, stages.num_tokens)
    return {
        "checkpoint": {
            "name": checkpoint.name,
            "fingerprint": checkpoint.fingerprint,
            "model_type": checkpoint.model_type,
        },
        "shape": asdict(stages.shape),
        "sparsities": asdict(sparsities),
        "task": stages.spec.task.model_dump(mode="json"),
        "milestone": result.sparsity,
        "level": result.level,
        "rewinding": stages.spec.pruning.rewinding,
        "lineage": asdict(result.lineage),
        "metrics": {"name": stages.context.task.metric, "search": result.metric},
    }


Place = tuple[Hashable, ...]
"""What a trained ticket is in the table: its kind, what tells it from others, task and seed."""


@dataclass(frozen=True)
class Job:
    """One model to train on a task with a seed.

    Attributes:
        task: Name of the task.
        seed: Seed of the replicate.
        mask: The mask; None = the dense model.
        is_random: Train a random mask of its size instead.
    """

    task: str
    seed: int
    mask: NamedMask | None = None
    is_random: bool = False

    @property
    def place(self) -> Place:
        """Where its result belongs; random masks of one size share theirs."""
        if self.mask is None:
            return "dense", self.task, self.seed
        if self.is_random:
            return "random", measure_size(self.mask), self.task, self.seed
        return "mask", self.mask.name, self.task, self.seed

    @property
    def name(self) -> str:
        """What a person reads."""
        if self.mask is None:
            return "dense"
        return f"random as large as {self.mask.name}" if self.is_random else self.mask.name

    def run(self, stages: TrialStages) -> TrainedTicket:
        """Train and evaluate; the store has the result afterwards.

        Raises:
            DivergedTrialError: The metric is not finite; the message says whose.
        """
        try:
            return self._train(at_seed(replace(stages, log=StageLog()), self.seed))
        except DivergedTrialError as error:
            raise DivergedTrialError(
                f"{self.name} on task {self.task!r}, seed {self.seed}: {error}; train with a "
                "lower retraining.learning_rate"
            ) from error

    def _train(self, stages: TrialStages) -> TrainedTicket:
        if self.mask is None:
            return measure_dense(stages, SPLITS)
        mask = self.mask.mask
        if self.is_random:
            mask = draw_random_mask(mask, self.seed)
        return train_ticket(stages, mask, self.mask.rewinding, SPLITS)


def list_jobs(transfer: Transfer, masks: Sequence[NamedMask]) -> Iterator[Job]:
    """Yield what has to be trained, the dense models first: all others of a task start from them.

    Masks of one size that rewind to the same point share their random mask.
    """
    places = list(product(transfer.tasks, transfer.seeds))
    for task, seed in places:
        yield Job(task, seed)
    sizes = {measure_size(mask): mask for mask in reversed(masks)}
    for task, seed in places:
        for mask in sizes.values():
            yield Job(task, seed, mask, is_random=True)
        for mask in masks:
            yield Job(task, seed, mask)


def measure_size(mask: NamedMask) -> tuple[int, int, float]:
    """Return heads and neurons kept, and where tickets are trained from."""
    heads, neurons = (mask.mask.num_kept(kind) for kind in UnitKind)
    return heads, neurons, mask.rewinding


def _fill(
    transfer: Transfer,
    masks: Sequence[NamedMask],
    stages: Mapping[str, TrialStages],
    session: StageSession,
    observer: TransferObserver,
) -> TransferTable:
    jobs = list(list_jobs(transfer, masks))
    observer.on_begin("Training on each task", len(jobs))
    trained: dict[Place, TrainedTicket] = {}
    for number, ticket in session.run([partial(job.run, stages[job.task]) for job in jobs]):
        job = jobs[number]
        trained[job.place] = ticket
        observer.on_done(f"{job.name} on {job.task}, seed {job.seed}: {_metric(ticket):.4f}")

    def find(*place: Hashable) -> list[TrainedTicket]:
        return [trained[(*place, seed)] for seed in transfer.seeds]

    first = next(iter(stages.values()))
    return TransferTable(
        checkpoint=transfer.spec.checkpoint,
        milestone=transfer.milestone,
        seeds=transfer.seeds,
        rows=tuple(_make_row(mask, first) for mask in masks),
        columns=tuple(
            _make_column(name, stages[name], find("dense", name)) for name in transfer.tasks
        ),
        cells=tuple(
            TransferCell(
                mask=mask.name,
                task=task,
                metrics=tuple(map(_metric, find("mask", mask.name, task))),
                random=tuple(map(_metric, find("random", measure_size(mask), task))),
                evaluations=tuple(map(_evaluation, find("mask", mask.name, task))),
            )
            for mask, task in product(masks, transfer.tasks)
        ),
    )


def _metric(ticket: TrainedTicket) -> float:
    return ticket.metrics[SPLITS[0]]


def _evaluation(ticket: TrainedTicket) -> str:
    return ticket.evaluations[SPLITS[0]]


def _make_column(name: str, stages: TrialStages, dense: Sequence[TrainedTicket]) -> TransferColumn:
    task = stages.context.task
    return TransferColumn(
        name=name,
        dataset=stages.spec.task.dataset,
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        floor=task.floors[SPLITS[0]],
        dense=tuple(map(_metric, dense)),
    )


def _make_row(mask: NamedMask, stages: TrialStages) -> TransferRow:
    heads, neurons = (mask.mask.num_kept(kind) for kind in UnitKind)
    return TransferRow(
        name=mask.name,
        home=mask.home,
        digest=mask.mask.digest,
        heads=heads,
        neurons=neurons,
        sparsities=measure_sparsities(stages.shape, mask.mask, stages.num_tokens),
        rewinding=mask.rewinding,
    )
