"""What the cluster has decides what runs on it, and refuses what would never run."""

from __future__ import annotations

from typing import Any

import pytest

from distprune.errors import ConfigError
from distprune.search import cluster
from distprune.search.cluster import (
    check_resources,
    count_concurrent,
    count_slots,
    resolve_resources,
)
from distprune.search.spec import ResourcesSpec

NODES = [
    {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0, "memory": 2.0**31}},
    {"Alive": True, "Resources": {"CPU": 8.0, "memory": 2.0**32}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0, "memory": 2.0**40}},
]
TOTAL = {"CPU": 12.0, "GPU": 2.0}


@pytest.fixture(autouse=True)
def three_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for a cluster of three nodes, of which one is dead."""
    monkeypatch.setattr(cluster.ray, "nodes", lambda: NODES)
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: TOTAL)


@pytest.mark.parametrize(
    ("resources", "has"),
    [
        ({"cpus_per_stage": 9}, "8 cores"),
        ({"shared_cpus": 9}, "8 cores"),
        ({"trial_memory_mib": 4097}, "4096 MiB of memory"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_node_has_is_refused(resources: dict[str, Any], has: str) -> None:
    """Ray would wait for it for ever."""
    ((name, amount),) = resources.items()
    with pytest.raises(ConfigError) as caught:
        check_resources(ResourcesSpec(**resources))
    assert str(caught.value).startswith(f"resources.{name}: {amount}; the largest node ")
    assert has in str(caught.value)


def test_gpu_that_no_node_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.ray, "nodes", lambda: NODES[1:])
    with pytest.raises(ConfigError, match=r"gpus_per_stage: 0\.5; the largest node .* has 0 GPUs"):
        check_resources(ResourcesSpec(gpus_per_stage=0.5))


def test_what_fits_the_largest_node_is_taken() -> None:
    check_resources(ResourcesSpec())
    check_resources(
        ResourcesSpec(cpus_per_stage=8, shared_cpus=8, gpus_per_stage=1, trial_memory_mib=4096)
    )


@pytest.mark.parametrize(
    ("num_gpus", "given", "resolved"), [(2.0, None, 1.0), (0.0, None, 0.0), (2.0, 0.0, 0.0)]
)
def test_stage_gets_a_gpu_where_there_are_any(
    num_gpus: float, given: float | None, resolved: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": num_gpus})
    assert resolve_resources(ResourcesSpec(gpus_per_stage=given)).gpus_per_stage == resolved


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ({}, 12),
        ({"cpus_per_stage": 3}, 3),  # one on the small node, two on the large one
        ({"cpus_per_stage": 4}, 3),
        ({"cpus_per_stage": 8}, 1),
        ({"gpus_per_stage": 0.25}, 4),  # no more than the cores of the node with the cards
        ({"gpus_per_stage": 1, "cpus_per_stage": 4}, 1),
        ({"cpus_per_stage": 64}, 1),
    ],
    ids=str,
)
def test_as_many_stages_run_as_fit_on_the_living_nodes(
    resources: dict[str, Any], count: int
) -> None:
    assert count_slots(ResourcesSpec(**resources)) == count


@pytest.mark.parametrize(
    ("resources", "count"),
    [({}, 18), ({"cpus_per_stage": 4}, 5), ({"cpus_per_stage": 8}, 2), ({"max_concurrent": 1}, 1)],
    ids=str,
)
def test_more_trials_than_stages_run(resources: dict[str, Any], count: int) -> None:
    assert count_concurrent(ResourcesSpec(**resources)) == count
