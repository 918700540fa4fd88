"""One small Ray cluster for all tests that need one; they run in one process, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from distprune.search.cluster import QUIET


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Start Ray on one core in this process."""
    import ray

    os.environ.update(QUIET)
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        configure_logging=False,
    )
    yield
    ray.shutdown()
