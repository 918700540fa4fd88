"""The Ray cluster: joined where an address is given, started on this machine where none is."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from distprune.core.selection import ROUNDING
from distprune.errors import ConfigError
from distprune.search.address import check_address, check_token, explain_refusal, use_token
from distprune.search.spec import ResourcesSpec

KEEPALIVE = {
    "RAY_grpc_client_keepalive_time_ms": "15000",
    "RAY_grpc_client_keepalive_timeout_ms": "30000",
}
"""Who waits for an answer of another node asks after 15 s whether the connection is still there,
not after 5 minutes: a cut of the network that is too short for the node to be given up may swallow
the answer."""

QUIET = KEEPALIVE | {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    # In a submitted job, the environment of the job and ours are put together.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    # Ray starts workers before the first driver of a node may go on, and if one of them dies then,
    # that driver waits forever (ray issue 40131). Ours need other workers anyway.
    "RAY_prestart_worker_first_driver": "0",
}
"""Environment of the driver: most of it keeps Ray's and Tune's output and files out of the way."""

# Threads that wait for each other by spinning lose a core each wherever another process wants it:
# a training step on two shared cores took seven times as long.
WORKER_ENVIRONMENT = KEEPALIVE | {
    "OMP_WAIT_POLICY": "PASSIVE",
    # Kernels are compiled for a shape, and the layers of compact models have many. With the 1,024
    # that are kept otherwise the stages of a study took a tenth longer, and a worker less memory,
    # before `distprune.trial.work.even_widths` (`python scripts/benchmark wall memory`).
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "4096",
    # glibc gives the memory of large tensors back to the system after each operation, and the next
    # one waits for it again. In bytes; the second alone makes it worse.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "TOKENIZERS_PARALLELISM": "false",
    # A stage that was granted no GPU sees none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}

PACKAGE = Path(__file__).parents[1]
"""This installation of distprune."""

QUIET_WORKERS = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONWARNINGS": "ignore",
}


@contextmanager
def connect_cluster(address: str | None, verbose: bool, ship_code: bool = False) -> Iterator[None]:
    """Connect to Ray inside the block; a cluster that was started here ends with it.

    Args:
        address: Address of a running cluster; None starts one on this machine.
        verbose: Let Ray's output and the workers' through.
        ship_code: Send this installation's distprune to the workers of a running cluster.

    Raises:
        ClusterError: Nothing answers at the address, or it refuses this machine.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    was_connected = ray.is_initialized()
    try:
        if address is not None:
            check_address(address)
            use_token()
            check_token(address)
        ray.init(
            address=address or "local",
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
            configure_logging=verbose,
            include_dashboard=False if address is None else None,
            runtime_env=make_environment(verbose, ship_code and address is not None),
        )
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        if not was_connected:
            disconnect()
        raise explain_refusal(address, error) from error
    try:
        with interrupted_by_sigterm():
            yield
    finally:
        disconnect()


def disconnect() -> None:
    """Leave the cluster; while that lasts, no thread may collect what belongs to Ray.

    Ray ends the process, with code 1, where one of its references is dropped while it shuts down.
    References in cycles are dropped by whatever thread the garbage collector happens to run on,
    that which tracks a study for example.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM interrupt the block as Ctrl-C does; Ray would leave at once.

    Batch systems and `ray job stop` end a driver so. Only the main thread hears of signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def make_environment(verbose: bool, ship_code: bool) -> dict[str, Any]:
    """Return what Ray sets up for every worker of this driver.

    It holds no secrets: Ray stores it and shows it. Workers have theirs from their nodes.
    """
    environment: dict[str, Any] = {
        "env_vars": WORKER_ENVIRONMENT | ({} if verbose else QUIET_WORKERS)
    }
    if ship_code:
        environment["py_modules"] = [str(PACKAGE)]
        environment["excludes"] = ["__pycache__"]
    return environment


def resolve_resources(resources: ResourcesSpec) -> ResourcesSpec:
    """Return the resources with what was left to the cluster filled in."""
    if resources.gpus_per_stage is not None:
        return resources
    gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    return resources.model_copy(update={"gpus_per_stage": gpus})


@dataclass(frozen=True)
class Capacity:
    """What a cluster has for the stages of a study, at one moment.

    Attributes:
        slots: Stages that run at a time, at least one.
        shared_cpus: Cores of a stage that all trials wait for.
        node_gpus: GPUs of the largest node.
        nodes: Identifiers of the living nodes.
    """

    slots: int
    shared_cpus: int
    node_gpus: int
    nodes: frozenset[str]


def check_resources(resources: ResourcesSpec) -> None:
    """Refuse what no node of the cluster has: Ray would wait for it for ever.

    Of a cluster that may grow nobody knows what its next nodes will have.

    Raises:
        ConfigError: A stage or a trial fits on no node.
    """
    if resources.autoscale_cpus is not None:
        return
    nodes = [node["Resources"] for node in list_living()]
    asked = [
        ("cpus_per_stage", resources.cpus_per_stage, "CPU", 1, "cores"),
        ("shared_cpus", resources.shared_cpus or 0, "CPU", 1, "cores"),
        ("gpus_per_stage", resources.gpus_per_stage or 0, "GPU", 1, "GPUs"),
        ("trial_memory_mib", resources.trial_memory_mib, "memory", 1 << 20, "MiB of memory"),
        ("stage_memory_mib", resources.stage_memory_mib or 0, "memory", 1 << 20, "MiB of memory"),
    ]
    for name, amount, resource, unit, words in asked:
        largest = max((node.get(resource, 0) // unit for node in nodes), default=0)
        if amount > largest:
            raise ConfigError(
                f"resources.{name}: {amount:g}; the largest node of the cluster has {largest:g} "
                f"{words}; ask for less, or add nodes"
            )
    if not any(count_node_slots(node, resources) for node in nodes):
        raise ConfigError(
            f"resources: {_describe_stage(resources)}; the cluster has each, but no single node "
            "has all of it, so no stage could start; ask for less of one, or add nodes"
        )


def measure_capacity(resources: ResourcesSpec) -> Capacity:
    """Ask what the cluster has for stages, as it is now."""
    living = list_living()
    nodes = [node["Resources"] for node in living]
    slots = [count_node_slots(node, resources) for node in nodes]
    hoped_for = (resources.autoscale_cpus or 0) // resources.cpus_per_stage
    # Cores of nodes on which no stage fits are of no use: a card may be missing there.
    cpus = [int(node["CPU"]) for node, count in zip(nodes, slots, strict=True) if count]
    return Capacity(
        slots=max(1, sum(slots), hoped_for),
        shared_cpus=resources.shared_cpus or max(cpus, default=resources.cpus_per_stage),
        node_gpus=int(max((node.get("GPU", 0) for node in nodes), default=0)),
        nodes=_identify(living),
    )


def list_nodes() -> frozenset[str]:
    """Return the identifiers of the living nodes of the cluster."""
    return _identify(list_living())


def list_living() -> list[dict[str, Any]]:
    """Return what Ray says of the living nodes of the cluster."""
    return [node for node in ray.nodes() if node["Alive"]]


def name_address_resource(node_id: str) -> str:
    """Return the name of the resource that Ray gives the nodes of an address; each has 1 of it."""
    (address,) = (n["NodeManagerAddress"] for n in list_living() if n["NodeID"] == node_id)
    return f"node:{address}"


def _identify(nodes: Iterable[dict[str, Any]]) -> frozenset[str]:
    return frozenset(str(node["NodeID"]) for node in nodes)


def count_slots(resources: ResourcesSpec) -> int:
    """Return how many stages run at a time, at least one; of a cluster that may grow, later."""
    return measure_capacity(resources).slots


def count_concurrent(resources: ResourcesSpec) -> int:
    """Return how many trials run at a time.

    Trials that wait for the same stage leave cores idle, and a trial holds none itself; so there
    are half as many again as stages fit on the cluster.
    """
    concurrent = _count_trials(count_slots(resources))
    if resources.max_concurrent is None:
        return concurrent
    if resources.stage_memory_mib is None:
        return resources.max_concurrent
    # More trials could take the memory of the stages that they wait for.
    return min(resources.max_concurrent, concurrent)


def count_node_slots(node: dict[str, float], resources: ResourcesSpec) -> int:
    """Return how many stages run at a time on a node with these resources of Ray."""
    slots = int(node.get("CPU", 0) // resources.cpus_per_stage)
    if resources.gpus_per_stage:
        slots = min(slots, int(node.get("GPU", 0) / resources.gpus_per_stage + ROUNDING))
    if resources.stage_memory_mib is not None:
        memory_mib = node.get("memory", 0) / (1 << 20)
        while slots and _count_memory_mib(slots, resources) > memory_mib:
            slots -= 1
    return slots


def _count_trials(slots: int) -> int:
    """Return how many trials keep so many slots busy."""
    return slots + (slots + 1) // 2


def _count_memory_mib(slots: int, resources: ResourcesSpec) -> int:
    """Return what so many stages take on a node, and the trials that wait for them."""
    stages = slots * (resources.stage_memory_mib or 0)
    return stages + _count_trials(slots) * resources.trial_memory_mib


def _describe_stage(resources: ResourcesSpec) -> str:
    parts = [f"cpus_per_stage {resources.cpus_per_stage}"]
    if resources.gpus_per_stage:
        parts.append(f"gpus_per_stage {resources.gpus_per_stage:g}")
    if resources.stage_memory_mib is not None:
        trials = _count_trials(1) * resources.trial_memory_mib
        parts.append(f"stage_memory_mib {resources.stage_memory_mib} and {trials} of its trials")
    return ", ".join(parts)
