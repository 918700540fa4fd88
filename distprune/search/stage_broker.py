"""Stages on Ray: one broker actor maps keys to running tasks, so that each is computed once.

A trial that waits for a stage holds no core. The task has the cores, GPUs and memory that the stage
needs. The broker starts it again where its worker or node was lost, and Ray the broker where its
own was; the trials then ask again, and the store's leases keep a stage that still runs from being
computed beside itself.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import secrets
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import cache
from typing import Any

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distprune.errors import DistpruneError, DivergedTrialError, StageError, StorageError
from distprune.search.cluster import Capacity, measure_capacity, name_address_resource
from distprune.search.node_losses import NodeLosses
from distprune.search.spec import ResourcesSpec
from distprune.search.stage_places import LostNodeError, StagePlaces
from distprune.search.stage_queue import StageQueue, Urgency
from distprune.search.termination import TERMINATION, PreemptedError
from distprune.store.store import Store
from distprune.trial.executor import run_stage
from distprune.trial.request import StageRequest
from distprune.trial.resolve import resolve_precision
from distprune.trial.spec import Precision

logger = logging.getLogger(__name__)

TASK_RETRIES = 3
"""How often a stage starts again that has crashed its worker. What was lost with a node, or had to
leave it, starts again however often that happens."""

CRASHES = (WorkerCrashedError, OutOfMemoryError)
LOSSES = (NodeDiedError, LocalRayletDiedError, LostNodeError, PreemptedError)

LOOK_S = 2.0
"""Seconds between two looks at the cluster while there is work: it may grow, or lose nodes."""

PAUSES_S = (1.0, 1.0, 2.0, 5.0, 10.0)
"""Seconds before a stage starts again, by how often it did; then the last of them. A node that was
cut off counts as alive for a while, and would get it again."""


@dataclass(frozen=True)
class Run:
    """One run of a stage: the broker that wants to know its node, and the broker's token for it."""

    broker: Any
    token: str

    def tell_node(self) -> None:
        """Tell on which node this process is; waits for nobody."""
        node = ray.get_runtime_context().get_node_id()
        self.broker.note_node.remote(self.token, node)


def compute_stage(request: StageRequest, store: Store, threads: int, gpus: float, run: Run) -> bool:
    """Compute one stage in a Ray worker, which keeps torch and the checkpoint for the next one.

    Returns:
        Whether it was computed here; False: another study has stored it meanwhile.

    Raises:
        PreemptedError: The worker was asked to end, and the stage took too long for that.
        StorageError: Storage cannot be read or written, seen from the host that the message names.
    """
    run.tell_node()
    try:
        with TERMINATION.delay():
            return run_stage(request, store, threads, gpus)
    except StorageError as error:
        raise StorageError(f"{error} (on {platform.node()})") from error


# Each trial that waits for a stage is a call under way; by default there can be a thousand.
@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=100_000)
class StageBroker:
    """Starts each stage once, however many trials ask for it."""

    def __init__(self, store: Store, resources: ResourcesSpec) -> None:
        self._store = store
        self._resources = resources
        self._capacity = self._measure_capacity()
        self._losses = NodeLosses()
        self._losses.look(self._capacity.nodes, time.monotonic())
        self._places = StagePlaces(self._capacity.nodes)
        self._queue = StageQueue()
        self._turns: dict[str, asyncio.Event] = {}
        self._running: dict[str, asyncio.Task[bool]] = {}
        self._diverged: dict[str, DivergedTrialError] = {}
        self._follower: asyncio.Task[None] | None = None

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
        turn = self._turns[key] = asyncio.Event()
        slots = max(1, self._count_cpus(request) // self._resources.cpus_per_stage)
        self._queue.add(key, slots, urgency)
        task = self._running[key] = asyncio.ensure_future(self._take_turn(request, turn))
        task.add_done_callback(lambda _: self._running.pop(key, None))
        self._start_next()
        if self._follower is None or self._follower.done():
            self._follower = asyncio.ensure_future(self._follow_cluster())
        return await asyncio.shield(task)

    async def note_node(self, token: str, node: str) -> None:
        """Note on which node a stage has begun."""
        self._places.note(token, node)

    async def _take_turn(self, request: StageRequest, turn: asyncio.Event) -> bool:
        """Wait for the stage's turn, run it unless it is stored, and let the next one start."""
        await turn.wait()
        try:
            # In a thread: storage may take long to answer, and others wait for the broker.
            if await asyncio.to_thread(self._store.has, request.key):
                return False
            return await self._run(request)
        except Exception as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, DivergedTrialError):
                self._diverged[request.key] = cause
            raise
        finally:
            self._queue.finish(request.key)
            self._start_next()

    def _start_next(self) -> None:
        for key in self._queue.start(self._capacity.slots):
            self._turns.pop(key).set()

    async def _run(self, request: StageRequest) -> bool:
        """Run a stage until it has ended by itself.

        Raises:
            StageError: It has crashed its workers too often.
        """
        crashes: list[float] = []
        num_tries = 0
        while True:
            try:
                return await self._submit(request)
            except (*CRASHES, *LOSSES) as error:
                if isinstance(error, CRASHES):
                    crashes.append(time.monotonic())
                await asyncio.sleep(PAUSES_S[min(num_tries, len(PAUSES_S) - 1)])
                num_tries += 1
                await self._look()
                counted = [when for when in crashes if not self._losses.explains(when)]
                if len(counted) > TASK_RETRIES:
                    raise StageError(_describe_crashes(request, len(counted), error)) from error

    async def _submit(self, request: StageRequest) -> bool:
        """Run a stage as a task of Ray.

        Raises:
            LostNodeError: Its node was lost, whatever becomes of the task.
        """
        resources = self._resources
        cpus, gpus = self._count_cpus(request), resources.gpus_per_stage or 0.0
        options: dict[str, Any] = {
            "name": f"{request.stage} {request.key[:8]}",
            "num_cpus": cpus,
            "scheduling_strategy": "DEFAULT",
        }
        if resources.stage_memory_mib is not None:
            options["memory"] = resources.stage_memory_mib << 20
        task = make_stage_task(gpus, self._capacity.node_gpus)
        run = Run(ray.get_runtime_context().current_actor, secrets.token_hex(8))
        with self._places.follow(run.token) as loss:
            answer = task.options(**options).remote(request, self._store, cpus, gpus, run)
            return await _await_unless(loss, answer)

    def _count_cpus(self, request: StageRequest) -> int:
        """Return the cores of a stage; one that all trials wait for gets those of a node."""
        cpus = self._resources.cpus_per_stage
        return max(cpus, self._capacity.shared_cpus) if request.is_shared else cpus

    async def _follow_cluster(self) -> None:
        """Look at the cluster from time to time, as long as there is work."""
        while self._running:
            await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        """See what the cluster has by now, and start what fits on it."""
        try:
            self._capacity = await asyncio.to_thread(self._measure_capacity)
        except (RayError, RuntimeError, OSError) as error:
            logger.warning("the cluster does not tell what it has: %s", error)
            return
        self._losses.look(self._capacity.nodes, time.monotonic())
        self._places.look(self._capacity.nodes)
        self._start_next()

    def _measure_capacity(self) -> Capacity:
        return measure_capacity(self._resources)


async def _await_unless(loss: asyncio.Event, answer: Awaitable[bool]) -> bool:
    """Return the answer of a task, unless its node is lost before."""
    answered = asyncio.ensure_future(_wait_for(answer))
    lost = asyncio.ensure_future(loss.wait())
    try:
        await asyncio.wait({answered, lost}, return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            return answered.result()
        raise LostNodeError("the node of the stage was lost")
    finally:
        answered.cancel()
        lost.cancel()


async def _wait_for(answer: Awaitable[bool]) -> bool:
    return await answer


def _describe_crashes(request: StageRequest, count: int, error: Exception) -> str:
    """Say in one line what became of a stage that crashes its workers."""
    stage = f"stage {request.stage} {request.key[:8]}"
    if isinstance(error, OutOfMemoryError):
        return (
            f"{stage}: its node ran out of memory {count} times; give each stage more with "
            "resources.stage_memory_mib, or let it need less (batch_size, max_length)"
        )
    return (
        f"{stage}: its worker died {count} times ({type(error).__name__}); if memory is short, "
        "set resources.stage_memory_mib; its last words are in Ray's logs on its node "
        "(/tmp/ray/session_latest/logs)"
    )


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
    """Start the broker of a study on the connected cluster, on the driver's node if it can be.

    There it is not lost with nodes that come and go. An actor that asks for no resource is handed
    to any node (ray 2.60, `GcsActorScheduler::SelectForwardingNode`), which keeps it if it is young
    and does not know the driver's node yet; one that asks for something, to the driver's.
    """
    node = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(node, soft=True)
    broker: Any = StageBroker
    options = {"scheduling_strategy": here, "resources": {name_address_resource(node): 0.001}}
    return broker.options(**options).remote(store, resources)


@cache
def make_stage_task(gpus: float, node_gpus: int) -> Any:
    """Return the Ray task of a stage.

    A worker process that has used a card stays on it, whatever Ray grants it next. So a GPU task
    keeps its process (and the checkpoint in it) only where every node has one card at most.

    Args:
        gpus: GPUs of one stage.
        node_gpus: GPUs of the largest node; 0 where it is not known yet.
    """
    max_calls = 1 if gpus and node_gpus != 1 else 0
    options = {"num_cpus": 1, "num_gpus": gpus, "max_calls": max_calls, "max_retries": 0}
    return ray.remote(**options)(compute_stage)


def ask_precision(precision: Precision, resources: ResourcesSpec) -> str:
    """Return the arithmetic of the stages; `auto` asks a worker that has their hardware."""
    if precision is not Precision.AUTO:
        return str(precision)
    gpus = resources.gpus_per_stage or 0.0
    task = ray.remote(num_cpus=resources.cpus_per_stage, num_gpus=gpus)(resolve_precision)
    return str(ray.get(task.remote(precision, gpus > 0)))
