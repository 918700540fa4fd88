"""Stages on Ray: one broker actor maps keys to running tasks, so that each is computed once.

A trial that waits for a stage holds no core. The task has the cores and GPUs that the stage needs,
and Ray starts it again where its node died.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import ray

from distprune.errors import DistpruneError
from distprune.search.spec import ResourcesSpec
from distprune.store.store import Store
from distprune.trial.executor import run_stage
from distprune.trial.request import StageRequest
from distprune.trial.resolve import resolve_precision
from distprune.trial.spec import Precision

TASK_RETRIES = 3
"""How often Ray starts a stage again whose worker or node died."""


def compute_stage(request: StageRequest, store: Store, threads: int) -> None:
    """Compute one stage in a Ray worker, which keeps torch and the checkpoint for the next one."""
    run_stage(request, store, threads)


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
        self._running: dict[str, asyncio.Task[None]] = {}

    async def ensure(self, request: StageRequest) -> None:
        """Return when the stage is stored; raise what it raised, to all who wait for it."""
        task = self._running.get(request.key)
        if task is None:
            if self._store.has(request.key):
                return
            task = asyncio.ensure_future(self._run(request))
            self._running[request.key] = task
            task.add_done_callback(lambda _: self._running.pop(request.key, None))
        await asyncio.shield(task)

    async def _run(self, request: StageRequest) -> None:
        cpus = self._shared_cpus if request.is_shared else self._resources.cpus_per_stage
        await self._task.options(
            name=f"{request.stage} {request.key[:8]}",
            num_cpus=cpus,
            scheduling_strategy="DEFAULT",
        ).remote(request, self._store, cpus)


@dataclass(frozen=True)
class RayExecutor:
    """Runs stages through the broker; implements `distprune.trial.executor.StageExecutor`."""

    broker: Any
    store: Store

    def ensure(self, request: StageRequest) -> None:
        """Return when the stage is stored; raise our own errors without the way that they took."""
        if self.store.has(request.key):
            return
        try:
            ray.get(self.broker.ensure.remote(request))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, DistpruneError):
                raise error.cause from None
            raise


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
