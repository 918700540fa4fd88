"""What a study will cost: its kinds of stage are timed where it will run, and it is played.

Nothing of it is stored. Optuna draws the trials, and learns from how good they are made up to be;
by that the study's own rule stops them or lets them go on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from distprune.library.study_folder import StudyFolder
from distprune.search.bill import Bill, sum_up
from distprune.search.cluster import (
    Capacity,
    check_resources,
    connect_cluster,
    count_concurrent,
    measure_capacity,
    resolve_resources,
)
from distprune.search.cluster_timing import time_on_cluster
from distprune.search.made_up_search import draw_rounds
from distprune.search.objective import find_comparable, open_objective
from distprune.search.planned_trials import AskedStages, ask_study, draw_target
from distprune.search.simulation import Course, PlannedStudy, Room, simulate
from distprune.search.spec import ResourcesSpec
from distprune.search.stage_broker import ask_precision
from distprune.search.stage_prices import PriceList, price_study
from distprune.search.stopping_rule import make_rule
from distprune.search.study import resolve_study
from distprune.search.study_file import Study
from distprune.store.store import Store
from distprune.tasks.prepared import PreparedTask, SplitName
from distprune.trial.context import TrialContext
from distprune.trial.stage_kinds import EVALUATION_BATCHES
from distprune.trial.stage_timing import (
    Miniature,
    TimingJob,
    Timings,
    count_batch_lengths,
    make_miniature,
)

LEFT_OUT = (
    "stages that the storage has already",
    "which settings are good, and how good: made up, and Optuna learns from that",
    "importance is made up, so what trials share because their importance agrees is not known",
    "trials that diverge or fail, and machines that are lost",
    "what else runs on the machines; on a small one, the search itself",
    "a storage that is slower than the workers' own disks; downloads",
    "the start of the command, and figures and tracking at its end",
)
"""What the estimate does not know of."""


@dataclass(frozen=True)
class PlanRequest:
    """What to plan, and where.

    Attributes:
        study: The checked study file.
        address: Address of a Ray cluster; None starts one on this machine.
        ship_code: Send this installation's distprune to the workers of a running cluster.
        verbose: Let Ray's and the workers' output through.
    """

    study: Study
    address: str | None = None
    ship_code: bool = False
    verbose: bool = False


@dataclass(frozen=True)
class Plan:
    """What a study will cost, and what that was estimated from.

    Attributes:
        bill: The stages of the study; its wall time begins with the command's first phase.
        room: Where they run.
        resources: What a stage asks for, resolved.
        timings: What the kinds of stage take.
    """

    bill: Bill
    room: Room
    resources: ResourcesSpec
    timings: Timings


Notify = Callable[[str], None]
"""Hears what comes next."""


def plan_study(request: PlanRequest, notify: Notify = lambda text: None) -> Plan:
    """Time a study's kinds of stage where it will run, and add up what it will cost.

    Raises:
        InputError: The study, its data or the cluster cannot be used.
        DistpruneError: A stage failed.
    """
    with tempfile.TemporaryDirectory(prefix="distprune-plan-") as folder:
        return _Planner(request.study, Path(folder), notify).plan(request)


@dataclass(frozen=True)
class _Planner:
    """Plans a study in a folder of its own."""

    study: Study
    scratch: Path
    notify: Notify

    def plan(self, request: PlanRequest) -> Plan:
        study, store = self.study, Store(str(self.scratch / "store"))
        began = time.monotonic()
        self.notify("Reading checkpoint and data")
        context = resolve_study(study, store)
        comparable = self._find_comparable(context)
        self.notify("Starting Ray")
        with connect_cluster(request.address, request.verbose, request.ship_code):
            resources = resolve_resources(study.spec.resources)
            check_resources(resources)
            context = replace(context, precision=ask_precision(study.base.precision, resources))
            start_s = time.monotonic() - began
            self.notify("Drawing trials")
            rounds = draw_rounds(study, comparable, count_concurrent(resources), self.scratch)
            asked = ask_study(study, context, rounds, self.scratch)
            self.notify(f"Timing {', '.join(sorted(map(str, asked.samples)))}")
            capacity = measure_capacity(resources)
            shared_cpus = max(capacity.shared_cpus, resources.cpus_per_stage)
            data = self._open_data(context, store, resources)
            job = self._make_job(asked, context, data)
            timings = time_on_cluster(job, resources, shared_cpus)
            room = make_room(resources, capacity, timings.start_s)
        self.notify("Playing the study through")
        prices = PriceList(
            timings=timings.kinds,
            context=context,
            lengths=data.count_lengths(),
            target=draw_target(study, context),
            shared_slots=shared_cpus // resources.cpus_per_stage,
        )
        planned = price_study(asked, prices, study.milestones)
        courses = [play(study, one, room, comparable) for one in planned]
        cpus, gpus = resources.cpus_per_stage, resources.gpus_per_stage or 0.0
        bill = sum_up(courses, len(study.milestones), cpus, gpus)
        return Plan(bill.begin_with(start_s, store.count_bytes()), room, resources, timings)

    def _find_comparable(self, context: TrialContext) -> int:
        # The copy of a latency table that a study keeps goes into the folder of the plan.
        folder = StudyFolder(self.scratch, self.study.spec.name)
        objective = open_objective(self.study, folder, context)
        pruning = self.study.base.pruning
        return find_comparable(objective, self.study.milestones, context.shape, pruning)

    def _open_data(self, context: TrialContext, store: Store, resources: ResourcesSpec) -> _Data:
        entry = store.find(context.prepared)
        assert entry is not None  # it was prepared a moment ago
        task = PreparedTask.open(entry.path("facts.json").parent)
        device = "cuda" if resources.gpus_per_stage else "cpu"
        return _Data(task, self.study.base.fine_tuning.batch_size, device)

    def _make_job(self, asked: AskedStages, context: TrialContext, data: _Data) -> TimingJob:
        return TimingJob(
            context=context,
            spec=self.study.base,
            samples=tuple(s for kind, s in asked.samples.items() if kind.stage != "dense"),
            target=draw_target(self.study, context),
            miniature=data.make_miniature(),
        )


@dataclass(frozen=True)
class _Data:
    """The data of a study, and the batches that its stages make of it."""

    task: PreparedTask
    train_batch: int
    device: str

    @property
    def batch_sizes(self) -> dict[SplitName, int]:
        evaluated = EVALUATION_BATCHES[self.device]
        return {"train": self.train_batch, "search": evaluated, "report": evaluated}

    def count_lengths(self) -> dict[str, int]:
        """Count the different lengths of the batches of each split."""
        from distprune.trial.work.batches import measure_lengths

        return {
            name: count_batch_lengths(measure_lengths(self.task.split(name)), size, self.device)
            for name, size in self.batch_sizes.items()
        }

    def make_miniature(self) -> Miniature:
        """Choose a few batches of the splits that are needed for a timing."""
        needed = self.batch_sizes
        del needed["report"]
        return make_miniature(self.task, needed, self.device)


def make_room(resources: ResourcesSpec, capacity: Capacity, worker_start_s: float) -> Room:
    """Return what the connected cluster offers a study."""
    return Room(
        slots=capacity.slots,
        concurrent=count_concurrent(resources),
        worker_start_s=worker_start_s,
        # See `distprune.search.stage_broker.make_stage_task`.
        keeps_workers=not resources.gpus_per_stage or capacity.node_gpus == 1,
    )


def play(study: Study, planned: PlannedStudy, room: Room, comparable: int) -> Course:
    """Play a study through by its own rule of stopping.

    Args:
        study: The study.
        planned: Its stages.
        room: Where they run.
        comparable: The first milestone at which its objective can tell trials apart.
    """
    return simulate(planned, room, make_rule(study, comparable, planned.qualities))
