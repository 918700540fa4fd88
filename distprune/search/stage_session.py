"""A session of stages on Ray without trials: for work whose chains of stages are known at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from distprune.search.cluster import (
    check_resources,
    connect_cluster,
    count_concurrent,
    resolve_resources,
)
from distprune.search.spec import ResourcesSpec
from distprune.search.stage_broker import RayExecutor, ask_precision, start_broker
from distprune.store.store import Store
from distprune.trial.spec import Precision

Result = TypeVar("Result")


@dataclass(frozen=True)
class StageSession:
    """A connected cluster and the broker of its stages.

    Attributes:
        executor: Runs stages; may be used from several threads.
        resources: What a stage asks for, resolved.
    """

    executor: RayExecutor
    resources: ResourcesSpec

    def resolve_precision(self, precision: Precision) -> str:
        """Return `float32` or `bfloat16`; `auto` asks a worker."""
        return ask_precision(precision, self.resources)

    def run(self, jobs: Sequence[Callable[[], Result]]) -> Iterator[tuple[int, Result]]:
        """Run jobs, each a chain of stages, as many at a time as the cluster keeps busy.

        Yields:
            The number of a job and its result, in the order in which they end.

        Raises:
            Exception: What the first job that fails raised; jobs that have not begun never begin.
        """
        pool = ThreadPoolExecutor(count_concurrent(self.resources))
        try:
            numbers = {pool.submit(job): number for number, job in enumerate(jobs)}
            for future in as_completed(numbers):
                yield numbers[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def open_stage_session(
    store: Store, resources: ResourcesSpec, address: str | None = None, verbose: bool = False
) -> Iterator[StageSession]:
    """Connect to Ray inside the block, or start it on this machine where no address is given.

    Raises:
        ConfigError: Nothing answers at the address, or a stage does not fit on the largest node.
    """
    with connect_cluster(address, verbose):
        resolved = resolve_resources(resources)
        check_resources(resolved)
        yield StageSession(RayExecutor(start_broker(store, resolved), store), resolved)
