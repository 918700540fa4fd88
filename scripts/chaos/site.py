"""Where rounds take place: what starts a search there, what can be struck, what is left."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

from distprune.library.study_folder import StudyFolder
from scripts.chaos.evidence import Evidence
from scripts.chaos.plans import Kind
from scripts.chaos.processes import Process


@dataclass
class Driver:
    """One call of `distprune search`.

    Attributes:
        process: Has `poll`; its exit code is that of the search.
        host: Where it runs, in words.
        out: File with what it prints.
        err: File with what it complains about.
        mark: By which its processes are found again.
    """

    process: Any
    host: str
    out: Path
    err: Path
    mark: str = ""

    def poll(self) -> int | None:
        """Return its exit code; None = it runs."""
        code: int | None = self.process.poll()
        return code

    def read_end(self, lines: int = 12) -> str:
        """Return the last lines of what it said."""
        said = [*self.out.read_text(errors="replace").splitlines()[-3:]]
        said += self.err.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(said)


@dataclass(frozen=True)
class Hit:
    """What a strike has done.

    Attributes:
        words: What it was, for the table.
        ends_driver: The driver is dead now, or can be by right.
        damaged: Keys of the entries that were damaged.
    """

    words: str
    ends_driver: bool = False
    damaged: tuple[str, ...] = field(default=())


class Site(Protocol):
    """Where rounds take place."""

    kinds: tuple[Kind, ...]
    """What can be struck here."""
    work: Path
    """Folder of all rounds, which every host sees."""

    def find_server(self) -> str:
        """Return the address of the tracking server, after making sure that it answers."""

    def start(self, file: Path) -> Driver:
        """Start a search of a study file, on whatever host is there."""

    def list_processes(self, driver: Driver) -> list[Process]:
        """List the processes that the study is computed by, the driver's own among them."""

    def kill_driver(self, driver: Driver) -> None:
        """Kill the driver alone, and wait for its end."""

    def kill_all(self, driver: Driver) -> None:
        """Kill everything that the driver has started, and wait for the driver's end."""

    def strike(self, kind: Kind, driver: Driver, random: Random) -> Hit | None:
        """Do what only this site can: raylets, tracking server, hosts, network; None = not yet."""

    def keep_up(self) -> None:
        """Bring back what has been away for long enough, as whoever runs a cluster would."""

    def gather(self, folder: StudyFolder, tracking: str | None) -> Evidence:
        """Read what a study has left, where its tracking server can be reached."""

    def find_orphans(self, drivers: list[Driver]) -> list[str]:
        """Describe the processes of these drivers that are alive long after their end."""

    def close(self, keep_files: bool) -> None:
        """End everything that this site has started, and remove its files if nobody needs them."""
