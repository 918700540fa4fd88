"""Memory that a second trial on a node adds, in the hand-written script and in distprune.

The proportional set size is summed over all processes of a session, Ray's own among them, while as
many of its workers are busy as trials may run; the medians with one and with two are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from distprune.library.study_folder import StudyFolder
from scripts.benchmark.arms import RunningArm, Watch
from scripts.benchmark.configurations import TWELVE, fixed_study
from scripts.benchmark.processes import find_processes, is_worker, read_shared_memory
from scripts.benchmark.results import Limit, Row, Values
from scripts.benchmark.samples import read_samples, write_sample
from scripts.benchmark.settings import Settings
from scripts.benchmark.spread import Spread, summarise
from scripts.benchmark.studies import run_distprune, run_naive, storage

MIB = 1 << 20
BUSY_PERCENT = 60.0
"""Share of a core that a worker uses while it trains."""
SETTLING_S = 15
"""Busy seconds before the first sample counts; workers import and load in them."""
LIMIT = 0.7
TRIALS = (1, 2)


def measure(settings: Settings) -> Values:
    """Read the memory of both arms with one and with two trials at a time."""
    naive = {count: read_naive_memory(settings, count) for count in TRIALS}
    ours = {count: read_distprune_memory(settings, count) for count in TRIALS}
    added = {
        name: memory[2].median - memory[1].median
        for name, memory in (("naive", naive), ("distprune", ours))
    }
    rows = [
        Row(
            "memory (PSS) that a second trial adds, distprune / naive",
            summarise([added["distprune"] / added["naive"]]),
            Limit("<=", LIMIT),
        )
    ]
    for name, memory in (("naive", naive), ("distprune", ours)):
        rows += [
            Row(f"memory (PSS), {name}, {count} at a time, MiB", memory[count]) for count in TRIALS
        ]
    return Values(rows, {"added_mib": added})


def read_naive_memory(settings: Settings, count: int) -> Spread:
    """Return the memory of the hand-written script with so many trials at a time, in MiB."""
    ended = run_naive(
        settings,
        f"naive-memory-{count}",
        TWELVE,
        concurrent=count,
        watch=watch_memory(count, settings, lambda folder: True),
    )
    return median_memory(ended.folder)


def read_distprune_memory(settings: Settings, count: int) -> Spread:
    """Return the memory of distprune with so many trials at a time, in MiB."""
    arm = f"distprune-memory-{count}"
    values = fixed_study(settings, arm, storage(settings, arm), TWELVE)
    values["resources"] = {"max_concurrent": count}
    history = StudyFolder(storage(settings, arm), arm).history
    watch = watch_memory(count, settings, lambda folder: history.exists())
    return median_memory(run_distprune(settings, arm, values, watch=watch).folder)


def watch_memory(count: int, settings: Settings, has_begun: Callable[[Path], bool]) -> Watch:
    """Return a watch that reads memory while `count` workers are busy, and ends the arm.

    Args:
        count: Trials at a time.
        settings: Says how many samples are enough.
        has_begun: Says of an arm's folder whether its trials have begun.
    """
    known: dict[int, psutil.Process] = {}
    busy_seconds = 0

    def watch(arm: RunningArm) -> bool:
        nonlocal busy_seconds
        if not has_begun(arm.folder):
            return True
        processes = find_processes(arm.mark)
        workers = [known.setdefault(one.pid, one) for one in processes if is_worker(one)]
        num_busy = sum(read_busy(worker) >= BUSY_PERCENT for worker in workers)
        if num_busy != count:
            return True
        busy_seconds += 1
        if busy_seconds > settle_seconds(settings):
            memory = sum(read_shared_memory(process.pid) for process in processes)
            write_sample(arm.folder, {"pss_mib": memory / MIB, "processes": len(processes)})
        return busy_seconds < settle_seconds(settings) + settings.memory_samples

    return watch


def settle_seconds(settings: Settings) -> int:
    """Return the busy seconds that do not count, fewer where few samples are asked for."""
    return min(SETTLING_S, settings.memory_samples)


def read_busy(process: psutil.Process) -> float:
    """Return the per cent of a core that a process has used since it was asked before."""
    try:
        return float(process.cpu_percent())
    except psutil.Error:
        return 0.0


def median_memory(folder: Path) -> Spread:
    """Return what the samples of an arm come to.

    Raises:
        ValueError: There are none; the arm ended before its trials were in steady training.
    """
    values: list[Any] = [sample["pss_mib"] for sample in read_samples(folder)]
    if not values:
        raise ValueError(f"memory: {folder.name} was never in steady training; use more examples")
    return summarise(values)
