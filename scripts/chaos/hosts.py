"""Rounds on the testbed: hosts that can die and be cut off, a cluster that outlives the driver.

Whoever runs a cluster brings back what has died. So does this site: a host that was killed, or that
Ray gave up while it was cut off, boots again after a while; where it is the head, all others join
the new cluster that it begins.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from cluster.testbed import Plan, Testbed, TestbedError
from distprune.library.study_folder import StudyFolder
from scripts.benchmark.settings import REPOSITORY
from scripts.chaos.evidence import Evidence, gather_evidence
from scripts.chaos.plans import Kind
from scripts.chaos.processes import Process, kill
from scripts.chaos.site import Driver, Hit

ROOT = Path("/var/tmp/distprune-chaos-testbed")
NUM_HOSTS = 3
LONGEST_PAUSE_S = 10.0
LONGEST_CUT_S = 40.0
"""Longer than it takes Ray to give a host up (ray 2.60: about 20 s)."""
GIVEN_UP_AFTER_S = 15.0
"""How long after the network is back a host that was given up is gone at the latest."""
ORPHAN_LIMIT_S = 90.0
TRACKING = "tracking"
LAPTOP = "laptop"


@dataclass(frozen=True)
class _Due:
    """Something to do to a node at a time, of the monotonic clock."""

    time: float
    name: str
    action: Callable[[], None]


class Hosts:
    """The testbed; implements `Site`. Brought up at once, and taken down by `close`.

    Args:
        root: Its folder; what an earlier one has left there goes first.

    Raises:
        TestbedError: This machine does not allow it.
    """

    kinds = tuple(Kind)

    def __init__(self, root: Path = ROOT) -> None:
        self._testbed = Testbed(root)
        self._testbed.down()
        self._testbed.up(Plan(hosts=NUM_HOSTS, cpus=1, tracking=True))
        self._pool = ThreadPoolExecutor(1)
        self._due: list[_Due] = []
        self._under_way: dict[str, Future[None]] = {}
        self._random = Random(0)
        self.work = self._testbed.shared / "chaos"

    @property
    def _head(self) -> str:
        return self._testbed.hosts[0]

    def find_server(self) -> str:
        """Wait until the server is back, if it is away."""
        self._settle(TRACKING)
        return self._testbed.tracking_uri

    def start(self, file: Path) -> Driver:
        """Start a search on any host, once the cluster is whole again."""
        self._settle(*self._testbed.hosts)
        host = self._random.choice(self._testbed.hosts)
        name = f"{time.time_ns()}"
        out, err = file.with_name(f"{name}.out"), file.with_name(f"{name}.err")
        program = Path(sys.executable).with_name("distprune")
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = self._testbed.start(
                host,
                [str(program), "search", str(file), "--address", "auto"],
                cwd=file.parent,
                environment={"COLUMNS": "100"},
                stdout=to_out,
                stderr=to_err,
            )
        return Driver(process, host, out, err)

    def list_processes(self, driver: Driver) -> list[Process]:
        """List all processes of the hosts that are up; one study runs at a time."""
        del driver
        return [process for host in self._testbed.hosts for process in self._list(host)]

    def kill_driver(self, driver: Driver) -> None:
        """Kill the search itself."""
        driver.process.kill()

    def kill_all(self, driver: Driver) -> None:
        """Kill the search, and all of Ray's workers; the hosts go on."""
        driver.process.kill()
        for process in self.list_processes(driver):
            if process.title.startswith("ray::") and not process.title.endswith("Agent"):
                kill(process.pid)

    def strike(self, kind: Kind, driver: Driver, random: Random) -> Hit | None:
        """Kill a raylet, a host or the tracking server, or cut a host off."""
        pause_s = random.uniform(0.0, LONGEST_PAUSE_S)
        if kind is Kind.TRACKING:
            if self._is_away(TRACKING):
                return None
            self._testbed.kill(TRACKING)
            self._later(pause_s, TRACKING, lambda: self._testbed.restart(TRACKING))
            return Hit(f"for {pause_s:.1f} s")
        if any(self._is_away(host) for host in self._testbed.hosts):
            return None
        host = random.choice(self._testbed.hosts)
        ends_driver = host in (driver.host, self._head)
        if kind is Kind.NETWORK:
            cut_s = random.uniform(1.0, LONGEST_CUT_S)
            self._testbed.cut(host)
            self._later(cut_s, host, lambda: self._heal(host))
            return Hit(f"of {host} for {cut_s:.0f} s", ends_driver)
        if kind is Kind.HOST:
            self._testbed.kill(host)
        else:
            raylets = [process for process in self._list(host) if process.is_a(Kind.RAYLET)]
            if not raylets:
                return None
            kill(raylets[0].pid)
        self._later(pause_s, host, lambda: self._bring_back(host))
        return Hit(f"{host} for {pause_s:.1f} s", ends_driver)

    def keep_up(self) -> None:
        """Do what is due, beside the round."""
        for due in [due for due in self._due if due.time <= time.monotonic()]:
            self._due.remove(due)
            self._under_way[due.name] = self._pool.submit(due.action)
        for name in [name for name, future in self._under_way.items() if future.done()]:
            self._under_way.pop(name).result()

    def gather(self, folder: StudyFolder, tracking: str | None) -> Evidence:
        """Read it here, or in the testbed where its tracking server is needed for that."""
        if tracking is None:
            return gather_evidence(folder, None, [])
        module = [sys.executable, "-m", "scripts.chaos.evidence"]
        command = [*module, str(folder.storage), folder.name, tracking]
        done = self._testbed.run(LAPTOP, command, cwd=REPOSITORY)
        if done.returncode:
            raise TestbedError(done.stderr.strip()[-500:])
        return Evidence(**json.loads(done.stdout))

    def find_orphans(self, drivers: list[Driver]) -> list[str]:
        """Wait for workers that still do something, and describe what does not end."""
        end = time.monotonic() + ORPHAN_LIMIT_S
        while True:
            living = [process for driver in drivers for process in self.list_processes(driver)]
            found = {f"{p.pid} {p.title[:100]}" for p in living if _is_of_a_study(p)}
            if not found or time.monotonic() > end:
                return sorted(found)
            time.sleep(1.0)

    def close(self, keep_files: bool) -> None:
        """Take the testbed down."""
        self._due.clear()
        self._pool.shutdown(wait=True)
        self._testbed.down(keep_files)

    def _list(self, host: str) -> list[Process]:
        with suppress(TestbedError):
            return [Process(one.pid, 0, 0, one.command) for one in self._testbed.processes(host)]
        return []

    def _later(self, seconds: float, name: str, action: Callable[[], None]) -> None:
        self._due.append(_Due(time.monotonic() + seconds, name, action))

    def _is_away(self, name: str) -> bool:
        return name in self._under_way or any(due.name == name for due in self._due)

    def _settle(self, *names: str) -> None:
        """Wait until nodes are back."""
        while any(self._is_away(name) for name in names):
            self.keep_up()
            time.sleep(0.1)

    def _heal(self, host: str) -> None:
        """Connect a host again; look later whether Ray has given it up meanwhile."""
        self._testbed.heal(host)
        self._later(GIVEN_UP_AFTER_S, host, lambda: self._bring_back_if_given_up(host))

    def _bring_back_if_given_up(self, host: str) -> None:
        if not any(process.is_a(Kind.RAYLET) for process in self._list(host)):
            self._bring_back(host)

    def _bring_back(self, host: str) -> None:
        self._testbed.restart(host)
        if host == self._head:
            for other in self._testbed.hosts[1:]:
                self._testbed.restart(other)


def _is_of_a_study(process: Process) -> bool:
    """Say whether a process does something for a study, or waits for the driver of one."""
    is_worker = process.title.startswith("ray::")
    is_agent = process.title.endswith("Agent") or process.title == "ray::IDLE"
    return "distprune search" in process.title or (is_worker and not is_agent)
