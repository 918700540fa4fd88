"""The Ray cluster: joined where an address is given, started on this machine where none is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from distprune.core.selection import ROUNDING
from distprune.errors import ConfigError
from distprune.search.spec import ResourcesSpec

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
}
"""Environment that keeps Ray's and Tune's own output and files out of the way."""

# Threads that wait for each other by spinning lose a core each wherever another process wants it:
# a training step on two shared cores took seven times as long.
WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    # Every layer of a compact model has shapes of its own, and kernels are compiled for a shape.
    # With the 1,024 that are kept otherwise the stages of a study take a tenth longer, and a worker
    # less memory (`python scripts/benchmark wall memory`).
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "4096",
    # glibc gives the memory of large tensors back to the system after each operation, and the next
    # one waits for it again. In bytes; the second alone makes it worse.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "TOKENIZERS_PARALLELISM": "false",
    # A stage that was granted no GPU sees none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}

QUIET_WORKERS = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONWARNINGS": "ignore",
}


@contextmanager
def connect_cluster(address: str | None, verbose: bool) -> Iterator[None]:
    """Connect to Ray inside the block; a cluster that was started here ends with it.

    Args:
        address: Address of a running cluster; None starts one on this machine.
        verbose: Let Ray's output and the workers' through.

    Raises:
        ConfigError: Nothing answers at the address.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        ray.init(
            address=address or "local",
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
            configure_logging=verbose,
            include_dashboard=False if address is None else None,
            runtime_env={"env_vars": WORKER_ENVIRONMENT | ({} if verbose else QUIET_WORKERS)},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"address: {address!r} does not answer ({str(error).splitlines()[0]}); start a "
            "cluster with `ray start --head`, or leave the address out"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def resolve_resources(resources: ResourcesSpec) -> ResourcesSpec:
    """Return the resources with what was left to the cluster filled in."""
    if resources.gpus_per_stage is not None:
        return resources
    gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    return resources.model_copy(update={"gpus_per_stage": gpus})


def check_resources(resources: ResourcesSpec) -> None:
    """Refuse what no node of the cluster has: Ray would wait for it for ever.

    Raises:
        ConfigError: A stage or a trial does not fit on the largest node.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = [
        ("cpus_per_stage", resources.cpus_per_stage, "CPU", 1, "cores"),
        ("shared_cpus", resources.shared_cpus or 0, "CPU", 1, "cores"),
        ("gpus_per_stage", resources.gpus_per_stage or 0, "GPU", 1, "GPUs"),
        ("trial_memory_mib", resources.trial_memory_mib, "memory", 1 << 20, "MiB of memory"),
    ]
    for name, amount, resource, unit, words in asked:
        largest = max((node.get(resource, 0) // unit for node in nodes), default=0)
        if amount > largest:
            raise ConfigError(
                f"resources.{name}: {amount:g}; the largest node of the cluster has {largest:g} "
                f"{words}; ask for less, or add nodes"
            )


def count_slots(resources: ResourcesSpec) -> int:
    """Return how many stages run at a time on the cluster as it is now, at least one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return max(1, sum(_count_node_slots(node, resources) for node in nodes))


def count_concurrent(resources: ResourcesSpec) -> int:
    """Return how many trials run at a time.

    Trials that wait for the same stage leave cores idle, and a trial holds none itself; so there
    are half as many again as stages fit on the cluster.
    """
    slots = count_slots(resources)
    return resources.max_concurrent or slots + (slots + 1) // 2


def _count_node_slots(node: dict[str, float], resources: ResourcesSpec) -> int:
    slots = int(node.get("CPU", 0) // resources.cpus_per_stage)
    if resources.gpus_per_stage:
        slots = min(slots, int(node.get("GPU", 0) / resources.gpus_per_stage + ROUNDING))
    return slots
