"""Rounds on this machine: each search starts Ray by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from random import Random

from distprune.library.study_folder import StudyFolder
from scripts.benchmark.arms import DROPPED_VARIABLES, QUIET
from scripts.benchmark.processes import MARK
from scripts.chaos.evidence import OUR_TEMPORARIES, Evidence, gather_evidence
from scripts.chaos.plans import LOCAL_KINDS, Kind
from scripts.chaos.processes import Process, find_marked, kill, read_process
from scripts.chaos.site import Driver, Hit
from scripts.chaos.tracking_server import TrackingServer

END_LIMIT_S = 90.0
"""Two of Ray's agents try for 60 s (ray 2.60, `publish_error_to_driver`) to tell a dead driver."""
LONGEST_PAUSE_S = 8.0
REFRESH_S = 0.5
"""How long a list of processes is used; looking at all of the machine's takes a while."""


class Machine:
    """This machine; implements `Site`.

    Args:
        work: New folder for the rounds, which stays; None = a temporary one.
    """

    kinds = LOCAL_KINDS

    def __init__(self, work: Path | None) -> None:
        self._is_lent = work is not None
        self.work = (work or Path(tempfile.mkdtemp(prefix="distprune-chaos-"))).resolve()
        # Ray's sockets are below it, and their paths may not be long.
        self._temporary = Path(tempfile.mkdtemp(prefix="dpc-", dir="/tmp"))
        self._server = TrackingServer(self.work / "tracking")
        self._listed: tuple[str, float, list[Process]] = ("", 0.0, [])

    def find_server(self) -> str:
        """Start the server if it is away, and wait for it."""
        self._server.wait_until_ready()
        return self._server.uri

    def start(self, file: Path) -> Driver:
        """Start a search in a session of its own."""
        mark = uuid.uuid4().hex
        out, err = file.with_name(f"{mark}.out"), file.with_name(f"{mark}.err")
        program = Path(sys.executable).with_name("distprune")
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                [str(program), "search", str(file)],
                stdout=to_out,
                stderr=to_err,
                env=self._make_environment(mark),
                start_new_session=True,
            )
        return Driver(process, "here", out, err, mark)

    def list_processes(self, driver: Driver) -> list[Process]:
        """List what the driver has started, with the titles of this moment."""
        mark, time_listed, processes = self._listed
        if mark != driver.mark or time.monotonic() - time_listed > REFRESH_S:
            processes = find_marked(driver.mark, [driver.process.pid])
            self._listed = (driver.mark, time.monotonic(), processes)
            return processes
        return [now for one in processes if (now := read_process(one.pid)) is not None]

    def kill_driver(self, driver: Driver) -> None:
        """Kill the first process of the session alone."""
        kill(driver.process.pid)
        driver.process.wait()

    def kill_all(self, driver: Driver) -> None:
        """Kill the whole session."""
        for _ in range(3):
            for process in find_marked(driver.mark, [driver.process.pid]):
                kill(process.pid)
        driver.process.wait()

    def strike(self, kind: Kind, driver: Driver, random: Random) -> Hit | None:
        """Kill the one raylet, or the tracking server."""
        if kind is Kind.TRACKING:
            pause_s = random.uniform(0.0, LONGEST_PAUSE_S)
            return Hit(f"for {pause_s:.1f} s") if self._server.kill(pause_s) else None
        raylets = [p for p in self.list_processes(driver) if p.is_a(Kind.RAYLET)]
        for process in raylets:
            kill(process.pid)
        return Hit("the only one", ends_driver=True) if raylets else None

    def keep_up(self) -> None:
        """Start the tracking server again when its pause is over."""
        self._server.keep_up()

    def gather(self, folder: StudyFolder, tracking: str | None) -> Evidence:
        """Read it here; then remove what it shows as left over, which is not the next round's."""
        evidence = gather_evidence(folder, tracking, [self._temporary])
        for path in self._temporary.glob(OUR_TEMPORARIES):
            shutil.rmtree(path)
        return evidence

    def find_orphans(self, drivers: list[Driver]) -> list[str]:
        """Wait for what is still alive, and describe what does not end."""
        end = time.monotonic() + END_LIMIT_S
        while True:
            found = [p for d in drivers for p in find_marked(d.mark, [d.process.pid])]
            if not found or time.monotonic() > end:
                return [f"{process.pid} {process.title[:100]}" for process in found]
            time.sleep(1.0)

    def close(self, keep_files: bool) -> None:
        """End the tracking server, and remove Ray's files."""
        self._server.stop()
        shutil.rmtree(self._temporary, ignore_errors=True)
        if not self._is_lent and not keep_files:
            shutil.rmtree(self.work, ignore_errors=True)

    def _make_environment(self, mark: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in DROPPED_VARIABLES}
        own = {MARK: mark, "TMPDIR": str(self._temporary), "OMP_NUM_THREADS": "1"}
        return kept | QUIET | own | {"COLUMNS": "100"}
