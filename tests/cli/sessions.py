"""`distprune search` in processes of its own, to be killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distprune.library.study_folder import StudyFolder

MARK = "DISTPRUNE_TEST_SESSION"
"""Environment variable by which all processes of a session are found again, Ray's too."""

START_LIMIT_S = 150.0
END_LIMIT_S = 90.0
"""Two of Ray's agents try for 60 s (ray 2.60, `publish_error_to_driver`) to tell a dead driver."""


@dataclass
class Session:
    """One call of `distprune search`.

    Attributes:
        process: The driver; it leads a process group of its own.
        mark: Value of `MARK` in all processes of the session.
        folder: Where the study file and its output are.
    """

    process: subprocess.Popen[bytes]
    mark: str
    folder: Path

    @property
    def study(self) -> StudyFolder:
        """The study that it works on."""
        return StudyFolder(self.folder / "studies", "tiny")

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return (self.folder / f"{self.mark}.out").read_text()

    @property
    def err(self) -> str:
        """What it has complained about so far."""
        return (self.folder / f"{self.mark}.err").read_text()

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        return self.process.wait(START_LIMIT_S)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition while the search runs."""
        wait_until(lambda: condition() or self.process.poll() is not None, START_LIMIT_S)
        assert condition(), self.out + self.err

    def kill_driver(self) -> None:
        """Kill the driver alone, as the system does when memory is short."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_all(self) -> None:
        """Kill every process of the session at once, as a power cut does."""
        for _ in range(3):
            for pid in self.find_processes():
                kill_quietly(pid)
        self.process.wait()

    def find_processes(self) -> list[int]:
        """List the living processes of the session."""
        return find_marked(self.mark)

    def find_orphans(self) -> list[str]:
        """List what is alive of the session a while after its driver has ended."""
        wait_until(lambda: not self.find_processes(), END_LIMIT_S)
        return [describe_process(pid) for pid in self.find_processes()]


@dataclass(frozen=True)
class Ended:
    """A session that has ended.

    Attributes:
        folder: The study that it worked on.
        code: Its exit code.
        out: What it printed.
        err: What it complained about.
        orphans: Processes of it that were alive long after.
    """

    folder: StudyFolder
    code: int
    out: str
    err: str
    orphans: tuple[str, ...] = ()


def finish(session: Session) -> Ended:
    """Wait for a session to end by itself, or by what was done to it."""
    code = session.wait()
    return Ended(session.study, code, session.out, session.err, tuple(session.find_orphans()))


@contextmanager
def start_search(study: Path, *arguments: str) -> Iterator[Session]:
    """Start a search; whatever happens, nothing of it is left after the block."""
    mark = uuid.uuid4().hex
    environment = os.environ | {MARK: mark, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    program = Path(sys.executable).with_name("distprune")
    command = [str(program), "search", str(study), *arguments]
    folder = study.parent
    with (
        (folder / f"{mark}.out").open("wb") as out,
        (folder / f"{mark}.err").open("wb") as err,
    ):
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env=environment, start_new_session=True
        )
    session = Session(process, mark, folder)
    try:
        yield session
    finally:
        session.kill_all()


def wait_until(condition: Callable[[], bool], limit_s: float) -> bool:
    """Wait for a condition; say if it came true in time."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def find_marked(mark: str) -> list[int]:
    """List the living processes that have a mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    return [pid for pid in list_processes() if wanted in read_environment(pid)]


def list_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def read_environment(pid: int) -> list[bytes]:
    """Return the variables that a living process was started with."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return [] if state == "Z" else Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def describe_process(pid: int) -> str:
    """Return what is needed to find out why a process is still alive."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return f"{pid} (gone now)"
    facts = [line.replace("\t", " ") for line in status if line.startswith(("State", "PPid"))]
    return f"{pid} {command} {facts}"


def kill_quietly(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
