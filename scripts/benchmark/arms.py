"""Arms: whole programs, each in processes of its own, with storage of its own that begins cold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmark.processes import MARK, end_processes
from scripts.benchmark.settings import REPOSITORY

RECORD = "arm.json"
TIME_LIMIT_S = 4 * 3600.0

# The benchmark's own settings of the environment would decide for both arms.
DROPPED_VARIABLES = ("RAY_ADDRESS", "OMP_NUM_THREADS", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID")
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}


class ArmFailedError(Exception):
    """An arm ended with an error; the message has the end of what it wrote."""


@dataclass(frozen=True)
class RunningArm:
    """An arm while it runs: its first process, the mark of all of them, its folder."""

    pid: int
    mark: str
    folder: Path


Watch = Callable[[RunningArm], bool]
"""Called every second; False ends the arm."""


@dataclass(frozen=True)
class EndedArm:
    """An arm that has ended.

    Attributes:
        folder: What it left.
        seconds: From the start of its first process to the end of it.
        was_stored: It had ended before, and was not run again.
    """

    folder: Path
    seconds: float
    was_stored: bool


@dataclass(frozen=True)
class Arm:
    """A program to run.

    Attributes:
        folder: Where it works; emptied first.
        command: Program and arguments.
        inputs: Files to write before the clock starts, by name in the folder.
        identity: Everything that decides the result, to find out whether it has run already.
    """

    folder: Path
    command: Sequence[str]
    identity: dict[str, Any]
    inputs: tuple[tuple[str, str], ...] = ()

    def run(self, watch: Watch | None = None) -> EndedArm:
        """Run the arm, unless it has ended in its folder before.

        Raises:
            ArmFailedError: It ended with an error by itself.
        """
        record = self.folder / RECORD
        if record.is_file():
            stored = json.loads(record.read_text())
            if stored["identity"] == self.identity:
                say(f"{self.folder.name}: has run before ({stored['seconds']:.1f} s)")
                return EndedArm(self.folder, stored["seconds"], was_stored=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name, text in self.inputs:
            (self.folder / name).write_text(text, encoding="utf-8")
        say(f"{self.folder.name}: begins")
        seconds = self._run(watch)
        say(f"{self.folder.name}: {seconds:.1f} s")
        values = {"identity": self.identity, "command": list(self.command), "seconds": seconds}
        record.write_text(json.dumps(values, indent=2) + "\n")
        return EndedArm(self.folder, seconds, was_stored=False)

    def _run(self, watch: Watch | None) -> float:
        mark = uuid.uuid4().hex
        with (self.folder / "output.txt").open("wb") as output:
            started = time.perf_counter()
            process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                env=make_environment(mark),
                start_new_session=True,
            )
            try:
                was_ended = self._wait(process, watch, mark, started + TIME_LIMIT_S)
                seconds = time.perf_counter() - started
            finally:
                end_processes(mark)
                process.wait()
        if process.returncode != 0 and not was_ended:
            lines = (self.folder / "output.txt").read_text(errors="replace").splitlines()
            raise ArmFailedError(
                f"{self.folder.name}: ended with code {process.returncode}; see "
                f"{self.folder / 'output.txt'}:\n" + "\n".join(lines[-15:])
            )
        return seconds

    def _wait(
        self, process: subprocess.Popen[bytes], watch: Watch | None, mark: str, end: float
    ) -> bool:
        """Wait for the end of the arm, and say whether the watch was what ended it."""
        arm = RunningArm(process.pid, mark, self.folder)
        while True:
            try:
                process.wait(1.0 if watch else end - time.perf_counter())
                return False
            except subprocess.TimeoutExpired:
                if time.perf_counter() > end:
                    raise ArmFailedError(
                        f"{self.folder.name}: has not ended in {TIME_LIMIT_S / 3600:g} hours"
                    ) from None
            if watch is not None and not watch(arm):
                return True


def make_environment(mark: str) -> dict[str, str]:
    """Return the environment of an arm; workers import this benchmark from the repository."""
    kept = {name: value for name, value in os.environ.items() if name not in DROPPED_VARIABLES}
    return kept | QUIET | {MARK: mark, "PYTHONPATH": str(REPOSITORY)}


def run_module(module: str, *arguments: object) -> list[str]:
    """Return the command that runs a module with this Python."""
    return [sys.executable, "-m", module, *(str(argument) for argument in arguments)]


def say(text: str) -> None:
    """Tell on standard error what happens."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
