"""Testbeds for the tests: skipped where the machine does not allow them, unless they must be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.testbed import Plan, Testbed, find_obstacle
from cluster.testbed.namespaces import find_holders

REQUIRED = "DISTPRUNE_REQUIRE_CLUSTER"
"""Environment variable that makes a failure of what would be skipped."""
ROOTS = Path("/var/tmp")
PREFIX = "distprune-tests-"


def check_machine(plan: Plan) -> None:
    """Skip the test where its testbed cannot be; fail where it must be."""
    obstacle = find_obstacle(plan)
    if obstacle is None:
        return
    if os.environ.get(REQUIRED, "0") not in ("", "0"):
        pytest.fail(f"{REQUIRED} is set, but: {obstacle}", pytrace=False)
    pytest.skip(obstacle)


@contextmanager
def lend_testbed(plan: Plan, name: str) -> Iterator[Testbed]:
    """Lend a testbed of this process; those of test processes that have died go first."""
    check_machine(plan)
    sweep()
    with Testbed.lend(plan, ROOTS / f"{PREFIX}{os.getpid()}-{name}") as testbed:
        yield testbed


def sweep() -> None:
    """Take down the testbeds of test processes that are no more."""
    held = {root for _, (root, _) in find_holders()}
    for root in {*held, *ROOTS.glob(f"{PREFIX}*")}:
        name = root.name.removeprefix(PREFIX)
        if name != root.name and not Path(f"/proc/{name.partition('-')[0]}").exists():
            Testbed(root).down()


@pytest.fixture(scope="session")
def testbed() -> Iterator[Testbed]:
    """Three Ray hosts, MLflow on PostgreSQL, S3."""
    with lend_testbed(Plan(hosts=3, tracking=True, s3=True), "ray") as testbed:
        yield testbed
