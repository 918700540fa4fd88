"""Executing stages: the protocol, its implementation in this process, and the table of stages.

The other implementation, on Ray, is in `distprune.search`.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

from distprune.store.store import Store
from distprune.trial.request import STAGE_VERSIONS, StageRequest

StageWork = Callable[[StageRequest, Store, Path], None]
"""Computes a stage from its request and the entries it names, and fills a folder."""


class StageExecutor(Protocol):
    """Makes sure that a stage's result is in the store."""

    def ensure(self, request: StageRequest) -> bool:
        """Return when the entry of `request.key` is stored; raise what the stage raised.

        Returns:
            Whether it was computed at this request; False: it was there, or another had asked.
        """


class InProcessExecutor:
    """Runs a stage at once, in this process; a lease keeps other processes from doing it too."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ensure(self, request: StageRequest) -> bool:
        """Run the stage unless it is stored."""
        return run_stage(request, self._store)


class NotStoredError(Exception):
    """A stage is not in the store, and the executor computes nothing; never leaves the package."""


class StoredExecutor:
    """Computes nothing: for trials of which every stage is stored."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ensure(self, request: StageRequest) -> bool:
        """Look the stage up.

        Raises:
            NotStoredError: It would have to be computed.
        """
        if not self._store.has(request.key):
            raise NotStoredError(f"{request.stage} {request.key}")
        return False


def run_stage(
    request: StageRequest, store: Store, threads: int | None = None, gpus: float = 0.0
) -> bool:
    """Find the stage's entry, or compute and commit it.

    Args:
        request: The stage.
        store: Has its inputs and gets its result.
        threads: Threads to compute with; None = as set.
        gpus: GPUs that the process was granted; a fraction of one limits its share of the memory.

    Returns:
        Whether it was computed here.
    """
    ran = False

    def write(folder: Path) -> None:
        nonlocal ran
        ran = True
        work = find_work(request.stage)
        _limit_resources(threads, gpus)
        work(request, store, folder)
        _return_memory()

    store.get_or_commit(request.key, write, request.identity)
    return ran


def _limit_resources(threads: int | None, gpus: float) -> None:
    """Keep torch in this process to what it was granted, so that its neighbours have theirs."""
    if threads is None and not 0.0 < gpus < 1.0:
        return
    torch = importlib.import_module("torch")
    if threads is not None:
        torch.set_num_threads(threads)
    if 0.0 < gpus < 1.0:
        torch.cuda.set_per_process_memory_fraction(gpus)


@cache
def _find_trim() -> Callable[[int], object]:
    """Return the C library's function that gives free memory back; where it has none, no effect."""
    trim: Callable[[int], object] = getattr(ctypes.CDLL(None), "malloc_trim", lambda padding: None)
    return trim


def _return_memory() -> None:
    """Give the memory that a stage has freed back to the system: the next one may run elsewhere."""
    _find_trim()(0)


def find_work(stage: str) -> StageWork:
    """Import the function that computes `stage`; torch and transformers come with it."""
    if stage not in STAGE_VERSIONS:
        raise ValueError(f"stage: {stage!r} is unknown; there are {', '.join(STAGE_VERSIONS)}")
    module = importlib.import_module(f"distprune.trial.work.{stage}")
    work: StageWork = module.work
    return work
