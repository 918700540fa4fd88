"""What the cluster has decides what runs on it, and refuses what would never run."""

from __future__ import annotations

import gc
import math
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import distprune
from distprune.errors import ClusterError, ConfigError
from distprune.search import cluster
from distprune.search.cluster import (
    check_resources,
    connect_cluster,
    count_concurrent,
    count_slots,
    disconnect,
    interrupted_by_sigterm,
    list_nodes,
    make_environment,
    measure_capacity,
    resolve_resources,
)
from distprune.search.spec import ResourcesSpec

NODES = [
    {"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0, "memory": 2.0**31}},
    {"NodeID": "b", "Alive": True, "Resources": {"CPU": 8.0, "memory": 2.0**32}},
    {"NodeID": "c", "Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0, "memory": 2.0**40}},
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
        ({"stage_memory_mib": 4097}, "4096 MiB of memory"),
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
    check_resources(ResourcesSpec(cpus_per_stage=8, shared_cpus=8, trial_memory_mib=4096))
    check_resources(ResourcesSpec(cpus_per_stage=4, gpus_per_stage=1))
    check_resources(ResourcesSpec(stage_memory_mib=4096 - 600))


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
        # 2048 MiB hold one stage and two trials, 4096 MiB two stages and three trials
        ({"stage_memory_mib": 1400}, 3),
        ({"stage_memory_mib": 300, "trial_memory_mib": 64}, 4 + 8),
        ({"stage_memory_mib": 1400, "gpus_per_stage": 1}, 1),
        ({"autoscale_cpus": 40}, 40),
        ({"autoscale_cpus": 40, "cpus_per_stage": 4}, 10),
        ({"autoscale_cpus": 2}, 12),  # it may be larger already
    ],
    ids=str,
)
def test_as_many_stages_run_as_fit_on_the_living_nodes(
    resources: dict[str, Any], count: int
) -> None:
    assert count_slots(ResourcesSpec(**resources)) == count


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ({}, 18),
        ({"cpus_per_stage": 4}, 5),
        ({"cpus_per_stage": 8}, 2),
        ({"max_concurrent": 1}, 1),
        ({"max_concurrent": 50}, 50),
        ({"max_concurrent": 50, "stage_memory_mib": 1400}, 5),  # more would take its memory
        ({"autoscale_cpus": 100}, 150),
    ],
    ids=str,
)
def test_more_trials_than_stages_run(resources: dict[str, Any], count: int) -> None:
    assert count_concurrent(ResourcesSpec(**resources)) == count


class TestEnvironment:
    def test_no_secret_is_forwarded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (
            "AWS_SECRET_ACCESS_KEY",
            "HF_TOKEN",
            "RAY_AUTH_TOKEN",
            "MLFLOW_TRACKING_TOKEN",
        ):
            monkeypatch.setenv(name, "topsecret")
        for ship_code in (False, True):
            assert "topsecret" not in str(make_environment(verbose=False, ship_code=ship_code))

    def test_code_is_shipped_when_asked_for(self) -> None:
        assert "py_modules" not in make_environment(verbose=False, ship_code=False)
        (folder,) = make_environment(verbose=False, ship_code=True)["py_modules"]
        assert Path(folder) == Path(distprune.__file__).parent

    def test_only_a_running_cluster_gets_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[Any] = []
        monkeypatch.setattr(cluster.ray, "init", lambda **options: started.append(options))
        monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
        monkeypatch.setattr(cluster, "check_address", lambda _: None)
        monkeypatch.setattr(cluster, "use_token", lambda: None)
        monkeypatch.setattr(cluster, "check_token", lambda _: None)
        for address in (None, "10.0.0.5:6379"):
            with connect_cluster(address, verbose=False, ship_code=True):
                pass
        assert ["py_modules" in options["runtime_env"] for options in started] == [False, True]


def test_refusal_of_ray_is_told_and_leaves_others_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[bool] = []

    def refuse(**_: Any) -> None:
        raise cluster.ray.exceptions.AuthenticationError("no token was found")

    monkeypatch.setattr(cluster.ray, "init", refuse)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: ended.append(True))
    monkeypatch.setattr(cluster, "check_address", lambda _: None)
    monkeypatch.setattr(cluster, "use_token", lambda: None)
    monkeypatch.setattr(cluster, "check_token", lambda _: None)
    for is_connected in (True, False):
        monkeypatch.setattr(
            cluster.ray, "is_initialized", lambda is_connected=is_connected: is_connected
        )
        with (
            pytest.raises(ClusterError, match=r"^token: the cluster at '10\.0\.0\.5:6379'"),
            connect_cluster("10.0.0.5:6379", verbose=False),
        ):
            pass
    assert ended == [True]


@pytest.mark.parametrize(
    ("resources", "named"),
    [
        ({"cpus_per_stage": 8, "gpus_per_stage": 1}, "cpus_per_stage 8, gpus_per_stage 1"),
        # Two trials wait for each stage, and take their memory beside it.
        ({"stage_memory_mib": 4096 - 599}, "stage_memory_mib 3497 and 600 of its trials"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_single_node_has_is_refused(resources: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match="no single node") as caught:
        check_resources(ResourcesSpec(**resources))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_cluster_has_not_yet_is_no_problem_where_it_may_grow() -> None:
    check_resources(ResourcesSpec(cpus_per_stage=64, gpus_per_stage=1, autoscale_cpus=640))


@pytest.mark.parametrize(
    ("resources", "shared_cpus"),
    [
        ({}, 8),
        ({"gpus_per_stage": 1}, 4),  # the node with eight cores has no card
        ({"stage_memory_mib": 3000}, 8),
        ({"shared_cpus": 2}, 2),
        ({"cpus_per_stage": 16, "autoscale_cpus": 64}, 16),  # no node has them yet
    ],
    ids=str,
)
def test_stage_that_all_wait_for_gets_the_cores_of_a_node_that_it_fits_on(
    resources: dict[str, Any], shared_cpus: int
) -> None:
    assert measure_capacity(ResourcesSpec(**resources)).shared_cpus == shared_cpus


def test_capacity_is_that_of_the_living_nodes() -> None:
    capacity = measure_capacity(ResourcesSpec())
    assert (capacity.slots, capacity.node_gpus) == (12, 2)
    assert capacity.nodes == list_nodes() == {"a", "b"}


@pytest.mark.parametrize("cores", [1, 3, 8])
@pytest.mark.parametrize("trial_memory_mib", [64, 300])
@pytest.mark.parametrize("stage_memory_mib", [100, 900, 2000])
def test_trials_never_take_the_memory_of_the_last_stage(
    cores: int, trial_memory_mib: int, stage_memory_mib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However Ray spreads the trials: some node has room for a stage."""
    memories = [1500, 2500, 4000]
    nodes = [
        {"NodeID": str(m), "Alive": True, "Resources": {"CPU": cores, "memory": m * 2.0**20}}
        for m in memories
    ]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    resources = ResourcesSpec(
        stage_memory_mib=stage_memory_mib, trial_memory_mib=trial_memory_mib, max_concurrent=99
    )
    # The fewest trials that leave no node room for a stage.
    blocking = sum(
        max(0, math.floor((memory - stage_memory_mib) / trial_memory_mib) + 1)
        for memory in memories
    )
    assert count_concurrent(resources) < blocking


def be_terminated() -> None:
    with interrupted_by_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)


def test_sigterm_interrupts_a_driver() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        be_terminated()
    assert signal.getsignal(signal.SIGTERM) == before


class _Node:
    """Something that a cycle keeps until garbage is collected."""

    def __init__(self, dropped: list[bool]) -> None:
        self.itself = self
        self._dropped = dropped

    def __del__(self) -> None:
        self._dropped.append(gc.isenabled())


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_collected_while_ray_shuts_down(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    dropped: list[bool] = []
    seen: list[tuple[bool, int]] = []

    def shutdown() -> None:
        seen.append((gc.isenabled(), len(dropped)))
        if fails:
            raise RuntimeError("no cluster")

    monkeypatch.setattr(cluster.ray, "shutdown", shutdown)
    _Node(dropped)
    with suppress(RuntimeError):
        disconnect()
    assert seen == [(False, 1)]
    assert gc.isenabled()


def test_connections_are_watched_by_driver_and_workers() -> None:
    """Ray's settings are what the processes read from their environment."""
    workers = make_environment(verbose=False, ship_code=False)["env_vars"]
    for environment in (cluster.QUIET, workers):
        assert cluster.KEEPALIVE.items() <= environment.items()
