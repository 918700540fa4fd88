"""Processes as /proc shows them, and programs that were started on a node."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cluster.testbed.errors import TestbedError

START_LIMIT_S = 10.0


@dataclass(frozen=True)
class Process:
    """A process on a node.

    Attributes:
        pid: Its number on the machine, so that `os.kill` reaches it; on the node it has another.
        command: Its command line; Ray's workers call themselves `ray::NAME`.
    """

    pid: int
    command: str

    def kill(self, sign: int = signal.SIGKILL) -> None:
        """Send it a signal; nothing happens if it is gone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, sign)


class HostProcess:
    """A program that was started on a node; signals reach the program itself.

    Attributes:
        popen: What started it there; it ends with the program and with its exit status.
    """

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.popen = popen
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """Number of the program on the machine.

        Raises:
            TestbedError: It ended before anybody could look.
        """
        if self._pid is None:
            end = time.monotonic() + START_LIMIT_S
            while not (children := find_children(self.popen.pid)):
                if self.popen.poll() is not None or time.monotonic() > end:
                    raise TestbedError(f"program {self.popen.args!r}: ended at once")
                time.sleep(0.005)
            self._pid = children[0]
        return self._pid

    @property
    def stdout(self) -> IO[bytes] | None:
        """Its output, if that was piped."""
        return self.popen.stdout

    def poll(self) -> int | None:
        """Return its exit status, negative = the signal that ended it; None = it runs."""
        return self.popen.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end, and return its exit status.

        Raises:
            TestbedError: It does not end in time.
        """
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TestbedError(
                f"program {self.popen.args!r}: no end within {timeout_s:g} s"
            ) from error

    def send_signal(self, sign: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError, TestbedError):
                os.kill(self.pid, sign)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait for its end."""
        self.send_signal(signal.SIGKILL)
        self.popen.kill()
        self.popen.wait()


def list_pids() -> list[int]:
    """Return all processes of the machine."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def list_node_processes(init: int) -> list[Process]:
    """Return the living processes of the node whose first process is `init`, but for that."""
    wanted = read_namespace(init)
    found = [pid for pid in list_pids() if pid != init and read_namespace(pid) == wanted]
    commands = {pid: " ".join(read_arguments(pid)) for pid in sorted(found)}
    return [Process(pid, command) for pid, command in commands.items() if command]


def find_children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [other for other in list_pids() if read_status(other, "PPid") == str(pid)]


def find_alive(pids: Iterable[int]) -> list[int]:
    """Return those of the processes that are alive; a zombie is not."""
    return [pid for pid in pids if read_status(pid, "State")[:1] not in ("", "Z", "X")]


def read_arguments(pid: int) -> list[str]:
    """Return a process's command line; empty = it is gone."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return line.decode(errors="replace").rstrip("\0").split("\0") if line else []


def read_status(pid: int, name: str) -> str:
    """Return what the kernel says of a process under a name; empty = it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), ""
    )


def read_namespace(pid: int) -> str | None:
    """Return the process namespace that a process is in; None = it is gone."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None
