"""Timing the kinds of stage of a study on its cluster: each as Ray would run it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distprune.errors import DistpruneError
from distprune.search.cluster import count_node_slots
from distprune.search.spec import ResourcesSpec
from distprune.search.stage_prices import combine_timings
from distprune.trial.stage_timing import TimingJob, Timings, time_stages


def time_on_cluster(job: TimingJob, resources: ResourcesSpec, shared_cpus: int) -> Timings:
    """Time stages on the cluster, those of trials on the node that has most room for them.

    What all trials wait for is timed alone, the rest with all slots of the node at work: stages
    that run beside each other slow each other down.

    Args:
        job: What to time.
        resources: What a stage asks for, resolved.
        shared_cpus: Cores of a stage that all trials wait for.

    Raises:
        DistpruneError: A stage failed.
    """
    shared = tuple(sample for sample in job.samples if sample.request.is_shared)
    others = tuple(sample for sample in job.samples if not sample.request.is_shared)
    node, slots = _find_node(resources)
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    before = _time(replace(job, samples=shared), resources, shared_cpus, 1, "DEFAULT")
    after = _time(replace(job, samples=others), resources, resources.cpus_per_stage, slots, here)
    return Timings(
        kinds={**after.kinds, **before.kinds},
        start_s=max(before.start_s, after.start_s),
        total_s=before.total_s + after.total_s,
    )


def _time(job: TimingJob, resources: ResourcesSpec, cpus: int, copies: int, where: Any) -> Timings:
    """Time stages in several processes at once."""
    gpus = resources.gpus_per_stage or 0.0
    options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": where}
    if resources.stage_memory_mib is not None:
        options["memory"] = resources.stage_memory_mib << 20
    task = ray.remote(**options)(time_stages)
    reference = ray.put(job)
    began = time.monotonic()
    try:
        parts: Sequence[Timings] = ray.get(
            [task.remote(reference, cpus, gpus) for _ in range(copies)]
        )
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DistpruneError):
            raise error.cause from None
        raise
    timings = combine_timings(parts)
    process_s = max(0.0, time.monotonic() - began - timings.total_s)
    return replace(timings, start_s=timings.start_s + process_s)


def _find_node(resources: ResourcesSpec) -> tuple[str, int]:
    """Return the node on which most stages run at a time, and how many."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    largest = max(nodes, key=lambda node: count_node_slots(node["Resources"], resources))
    return largest["NodeID"], max(1, count_node_slots(largest["Resources"], resources))
