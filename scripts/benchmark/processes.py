"""The processes of an arm, Ray's among them: finding them, their memory, ending them."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import psutil

MARK = "DISTPRUNE_BENCHMARK_ARM"
"""Environment variable by which all processes of an arm are found again."""

KIB = 1024


def find_processes(mark: str) -> list[psutil.Process]:
    """List the living processes that were started with a mark, and their descendants."""
    wanted = f"{MARK}={mark}".encode()
    found: dict[int, psutil.Process] = {}
    for pid in psutil.pids():
        # A process may end, or hide its environment, at any moment.
        with contextlib.suppress(OSError, psutil.Error):
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                process = psutil.Process(pid)
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    return [process for process in found.values() if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    """Say whether a process still does anything."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def end_processes(mark: str) -> int:
    """Kill what is left of an arm, and return how many processes that were."""
    num_killed = 0
    for _ in range(3):
        for process in find_processes(mark):
            with contextlib.suppress(psutil.Error):
                process.kill()
                num_killed += 1
    return num_killed


def is_worker(process: psutil.Process) -> bool:
    """Say whether a process is one of Ray's that runs a trial or a stage."""
    try:
        return any(word.startswith("ray::") for word in process.cmdline()[:1])
    except psutil.Error:
        return False


def read_shared_memory(pid: int) -> int:
    """Return the proportional set size of a process in bytes; 0 = it is gone."""
    try:
        return parse_shared_memory(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return 0


def parse_shared_memory(text: str) -> int:
    """Return the Pss of a smaps_rollup file in bytes."""
    found = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * KIB if found else 0
