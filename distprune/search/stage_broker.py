"""Stages on Ray: one broker actor maps keys to running tasks, so that each is computed once.

A trial that waits for a stage holds no core. The task has the cores and GPUs that the stage needs.
Ray starts it again where its worker or node died, and the broker where its own did; the trials then
ask again, and the store's leases keep a stage that still runs from being computed beside itself.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import ray

from distprune.errors import DistpruneError, DivergedTrialError
from distprune.search.cluster import count_slots
from distprune.search.spec import ResourcesSpec
from distprune.search.stage_queue import StageQueue, Urgency
from distprune.store.store import Store
from distprune.trial.executor import run_stage
from distprune.trial.request import StageRequest
from distprune.trial.resolve import resolve_precision
from distprune.trial.spec import Precision

TASK_RETRIES = 3
"""How often Ray starts a stage again whose worker or node died."""


def compute_stage(request: StageRequest, store: Store, threads: int, gpus: float) -> bool:
    """Compute one stage in a Ray worker, which keeps torch and the checkpoint for the next one.

    Returns:
        Whether it was computed here; False: another study has stored it meanwhile.
    """
    return run_stage(request, store, threads, gpus)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class StageBroker:
    """Starts each stage once, however many trials ask for it."""

    def __init__(
        self, store: Store, resources: ResourcesSpec, shared_cpus: int, node_gpus: int = 0
    ) -> None:
        self._store = store
        self._resources = resources
        self._shared_cpus = shared_cpus
        self._task = make_stage_task(resources.gpus_per_stage or 0.0, node_gpus)
        self._queue = StageQueue()
        self._turns: dict[str, asyncio.Event] = {}
        self._running: dict[str, asyncio.Task[bool]] = {}
        self._diverged: dict[str, DivergedTrialError] = {}

    async def ensure(self, request: StageRequest, urgency: Urgency) -> bool:
        """Return when the stage is stored; raise what it raised, to all who wait for it.

        A stage that has diverged is not tried again: it would diverge again.

        Returns:
            Whether it was computed at this request; False: it was there, or another had asked.
        """
        key = request.key
        if key in self._diverged:
            raise self._diverged[key]
        task = self._running.get(key)
        if task is not None:
            self._queue.hurry(key, urgency)
            await asyncio.shield(task)
            return False
        if self._store.has(key):
            return False
        cpus = self._shared_cpus if request.is_shared else self._resources.cpus_per_stage
        turn = self._turns[key] = asyncio.Event()
        self._queue.add(key, max(1, cpus // self._resources.cpus_per_stage), urgency)
        task = self._running[key] = asyncio.ensure_future(self._take_turn(request, cpus, turn))
        task.add_done_callback(lambda _: self._running.pop(key, None))
        self._start_next()
        return await asyncio.shield(task)

    async def _take_turn(self, request: StageRequest, cpus: int, turn: asyncio.Event) -> bool:
        """Wait for the stage's turn, run it, and let the next one start."""
        await turn.wait()
        try:
            return await self._run(request, cpus)
        except Exception as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, DivergedTrialError):
                self._diverged[request.key] = cause
            raise
        finally:
            self._queue.finish(request.key)
            self._start_next()

    def _start_next(self) -> None:
        for key in self._queue.start(self._count_slots()):
            self._turns.pop(key).set()

    def _count_slots(self) -> int:
        """Return how many stages the cluster runs at a time, as it is now."""
        return count_slots(self._resources)

    async def _run(self, request: StageRequest, cpus: int) -> bool:
        computed: bool = await self._task.options(
            name=f"{request.stage} {request.key[:8]}",
            num_cpus=cpus,
            scheduling_strategy="DEFAULT",
        ).remote(request, self._store, cpus, self._resources.gpus_per_stage or 0.0)
        return computed


@dataclass
class RayExecutor:
    """Runs stages through the broker; implements `distprune.trial.executor.StageExecutor`.

    Attributes:
        broker: The study's broker.
        store: The study's store.
        levels_left: Levels that the trial has to go to its next milestone; the fewer, the sooner
            its stages start.
    """

    broker: Any
    store: Store
    levels_left: int = 0

    def ensure(self, request: StageRequest) -> bool:
        """Return when the stage is stored; raise our own errors without the way that they took."""
        if self.store.has(request.key):
            return False
        urgency = Urgency.of(request.stage, self.levels_left)
        try:
            computed: bool = ray.get(self.broker.ensure.remote(request, urgency))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, DistpruneError):
                raise error.cause from None
            raise
        return computed


def start_broker(store: Store, resources: ResourcesSpec) -> Any:
    """Start the broker of a study on the connected cluster."""
    shared_cpus = resources.shared_cpus or count_node_cpus()
    broker: Any = StageBroker
    cpus = max(shared_cpus, resources.cpus_per_stage)
    return broker.remote(store, resources, cpus, count_node_gpus())


def make_stage_task(gpus: float, node_gpus: int) -> Any:
    """Return the Ray task of a stage.

    A worker process that has used a card stays on it, whatever Ray grants it next. So a GPU task
    keeps its process (and the checkpoint in it) only where a node has one card.

    Args:
        gpus: GPUs of one stage.
        node_gpus: GPUs of the largest node.
    """
    max_calls = 1 if gpus and node_gpus > 1 else 0
    options = {"num_cpus": 1, "num_gpus": gpus, "max_calls": max_calls, "max_retries": TASK_RETRIES}
    return ray.remote(**options)(compute_stage)


def ask_precision(precision: Precision, resources: ResourcesSpec) -> str:
    """Return the arithmetic of the stages; `auto` asks a worker that has their hardware."""
    if precision is not Precision.AUTO:
        return str(precision)
    gpus = resources.gpus_per_stage or 0.0
    task = ray.remote(num_cpus=resources.cpus_per_stage, num_gpus=gpus)(resolve_precision)
    return str(ray.get(task.remote(precision, gpus > 0)))


def count_node_gpus() -> int:
    """Return the GPUs of the largest node of the cluster."""
    return int(max((node["Resources"].get("GPU", 0) for node in ray.nodes()), default=0))


def count_node_cpus() -> int:
    """Return the cores of the largest node of the cluster, at least one."""
    cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return max(1, int(max(cpus, default=os.cpu_count() or 1)))
