"""The processes of one start of a search: the driver, Ray's, and what they have started."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark.processes import MARK
from scripts.chaos.plans import Kind

TITLES = {
    Kind.STAGE: re.compile(r"ray::\w+ [0-9a-f]{8}$"),
    Kind.TRIAL: re.compile(r"ray::ImplicitFunc"),
    Kind.BROKER: re.compile(r"ray::StageBroker"),
    Kind.RAYLET: re.compile(r"\S+/raylet/raylet "),
}
"""What the command line of a process begins with, by what it is to a study."""

IDLE = re.compile(r"ray::IDLE$")
"""A worker that computes nothing at the moment."""


@dataclass(frozen=True)
class Process:
    """A living process.

    Attributes:
        pid: Its number.
        parent: Number of the process that has started it, or that took its place.
        session: Number of the process that leads its session.
        title: Its command line; Ray's workers change theirs with what they do.
    """

    pid: int
    parent: int
    session: int
    title: str

    def is_a(self, kind: Kind) -> bool:
        """Say whether the process is what a strike of this kind looks for."""
        return TITLES[kind].match(self.title) is not None


def find_marked(mark: str, leaders: Iterable[int] = ()) -> list[Process]:
    """Find the processes that were started with a mark, and all that come from them.

    A process that has changed its title may hide its environment by that; its session and its
    parent then tell.

    Args:
        mark: Value of `MARK` in the environment of the first process.
        leaders: Processes that lead a session of that first process's own.
    """
    wanted, sessions = f"{MARK}={mark}".encode(), set(leaders)
    living = {process.pid: process for process in list_processes()}
    found = {
        process.pid
        for process in living.values()
        if process.session in sessions or wanted in read_environment(process.pid)
    }
    while more := {p.pid for p in living.values() if p.parent in found} - found:
        found |= more
    return [living[pid] for pid in sorted(found)]


def list_processes() -> list[Process]:
    """List all living processes of the machine."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [process for pid in pids if (process := read_process(pid)) is not None]


def read_process(pid: int) -> Process | None:
    """Read what the system tells of a process; None = it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return None
    state, parent, _, session = stat.rpartition(")")[2].split()[:4]
    return None if state in ("Z", "X") else Process(pid, int(parent), int(session), title)


def read_environment(pid: int) -> list[bytes]:
    """Return the variables that a process was started with; none where it is gone or not ours."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def kill(pid: int) -> None:
    """Kill a process at once, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
