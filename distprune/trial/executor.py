"""Executing stages: the protocol, its implementation in this process, and the table of stages.

The other implementation, on Ray, is in `distprune.search`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from distprune.store.store import Store
from distprune.trial.request import STAGE_VERSIONS, StageRequest

StageWork = Callable[[StageRequest, Store, Path], None]
"""Computes a stage from its request and the entries it names, and fills a folder."""


class StageExecutor(Protocol):
    """Makes sure that a stage's result is in the store."""

    def ensure(self, request: StageRequest) -> None:
        """Return when the entry of `request.key` is stored; raise what the stage raised."""


class InProcessExecutor:
    """Runs a stage at once, in this process; a lease keeps other processes from doing it too."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ensure(self, request: StageRequest) -> None:
        """Run the stage unless it is stored."""
        run_stage(request, self._store)


def run_stage(request: StageRequest, store: Store, threads: int | None = None) -> None:
    """Find the stage's entry, or compute it with so many threads (None = as set) and commit it."""

    def write(folder: Path) -> None:
        work = find_work(request.stage)
        if threads is not None:
            torch = importlib.import_module("torch")
            torch.set_num_threads(threads)
        work(request, store, folder)

    store.get_or_commit(request.key, write, request.identity)


def find_work(stage: str) -> StageWork:
    """Import the function that computes `stage`; torch and transformers come with it."""
    if stage not in STAGE_VERSIONS:
        raise ValueError(f"stage: {stage!r} is unknown; there are {', '.join(STAGE_VERSIONS)}")
    module = importlib.import_module(f"distprune.trial.work.{stage}")
    work: StageWork = module.work
    return work
