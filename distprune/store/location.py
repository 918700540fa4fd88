"""What a store needs from the place where it lives, and the local folders of its writers.

Two leaves implement it: `local.py` for mounted file systems, `remote.py` for fsspec URIs.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from distprune.store.failure import storage_failures
from distprune.store.inventory import EntrySummary, Leftover, LeftoverKind
from distprune.store.manifest import Manifest
from distprune.store.process import Process, current_process

LEASE_EXPIRY_S = 60.0
"""Seconds of silence after which an owner of a lease counts as gone."""

ABANDONED_S = 86_400.0
"""Age after which a temporary folder of another host is stale, if that process holds no lease."""


@dataclass(frozen=True)
class LeaseTerms:
    """How long to wait for a lease, and when it counts as abandoned."""

    timeout_s: float | None
    """Longest wait in seconds; None waits for as long as the owner lives."""

    poll_s: float
    """Seconds between two looks at a lease that another process holds."""

    expiry_s: float
    """Age of the last heartbeat in seconds after which a lease is broken."""


class Location(Protocol):
    """Where entries live."""

    @property
    def root(self) -> str:
        """The location as shown to users; opening it again gives an equal location."""

    def has(self, key: str) -> bool:
        """Tell whether an entry has a manifest."""

    def read_manifest(self, key: str) -> bytes | None:
        """Read a manifest; None without entry, DamagedEntryError for an entry without one."""

    def verify_file(self, manifest: Manifest, name: str) -> None:
        """Make a file available at `copy_path` and check it; DamagedEntryError if it is wrong."""

    def copy_path(self, manifest: Manifest, name: str) -> Path:
        """Name the local path of a file, whether it is there or not."""

    def temporary_folder(self) -> AbstractContextManager[Path]:
        """Make a local folder to fill, and remove what is left of it in the end."""

    def choose_folder(self) -> str:
        """Choose the subfolder of the next entry that holds its files; "" for none."""

    def publish(self, folder: Path, manifest: Manifest) -> bool:
        """Make a filled folder an entry, whole or not at all; False if the key is taken."""

    def set_aside(self, key: str, digest: str | None) -> str | None:
        """Move an entry out of the way if its manifest still has this digest (None: no manifest).

        Returns where it is now, or None if another process has moved or replaced it.
        """

    def lease(self, key: str, terms: LeaseTerms) -> AbstractContextManager[None]:
        """Hold the lease of a key."""

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of all entries that have a manifest, sorted."""

    def mark_used(self, key: str) -> None:
        """Note that an entry is used now, where the location can."""

    def list_entries(self) -> Iterator[EntrySummary]:
        """Summarise all entries, those without a readable manifest too, sorted by key."""

    def remove(self, entry: EntrySummary) -> bool:
        """Remove an entry whole, unless it was used or replaced since, or its lease is held."""

    def eviction(self) -> AbstractContextManager[None]:
        """Keep other processes from evicting while the body does, where the location can."""

    def list_leftovers(self) -> list[Leftover]:
        """List temporaries and damaged entries."""

    def remove_damaged(self) -> int:
        """Remove the damaged entries that were set aside; returns how many."""

    def count_bytes(self) -> int:
        """Add up the sizes of all files of entries."""

    def check_writable(self) -> None:
        """Write and delete a file; StorageError if that fails."""

    def remove_stale_temporaries(self) -> int:
        """Remove folders of processes that are gone; returns how many."""


def make_folder(folder: Path, root: str) -> None:
    """Make a folder of the store and its parents, if they are not there.

    Raises:
        StorageError: It cannot be made.
    """
    with storage_failures(root, "make a folder"):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def temporary_folder(parent: Path, root: str) -> Iterator[Path]:
    """Make a fresh folder that carries its process in its name; remove it in the end.

    Args:
        parent: The folder for temporaries; made if it is not there.
        root: The storage location, for messages.

    Yields:
        The empty folder. What has been renamed away by the end stays.

    Raises:
        StorageError: It cannot be made.
    """
    folder = parent / f"{_spell_owner(current_process())}~{secrets.token_hex(8)}"
    make_folder(parent, root)
    try:
        with storage_failures(root, "make a temporary folder"):
            folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def list_temporaries(parent: Path, working: Collection[Process] = ()) -> list[Leftover]:
    """List the temporary folders; stale are those whose process is gone.

    Args:
        parent: The folder for temporaries.
        working: Processes that give signs of life.

    Returns:
        A folder is stale if its process is dead. Nothing tells that of processes of other hosts and
        containers: theirs are stale if they do not work and nothing has changed for a day.
    """
    if not parent.is_dir():
        return []
    return [
        Leftover(
            kind=LeftoverKind.TEMPORARY,
            name=f"{parent.name}/{folder.name}",
            num_bytes=measure_folder(folder),
            is_stale=_is_stale(folder, working),
        )
        for folder in sorted(parent.iterdir())
    ]


def remove_stale_temporaries(parent: Path, root: str, working: Collection[Process] = ()) -> int:
    """Remove the temporary folders whose process is gone, as `list_temporaries` judges.

    Args:
        parent: The folder for temporaries.
        root: The storage location, for messages.
        working: Processes that give signs of life.

    Returns:
        How many were removed.

    Raises:
        StorageError: One cannot be removed.
    """
    stale = [
        parent.parent / leftover.name
        for leftover in list_temporaries(parent, working)
        if leftover.is_stale
    ]
    for folder in stale:
        with storage_failures(root, "remove a stale temporary folder"):
            remove_folder(folder)
    return len(stale)


def remove_temporaries_of(process: Process, parent: Path) -> None:
    """Remove the temporary folders of one process, which must be gone."""
    for folder in parent.glob(f"{_spell_owner(process)}~*"):
        remove_folder(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder that nobody uses; another process may remove it at the same time."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def measure_folder(folder: Path) -> int:
    """Add up the sizes of all files below a folder; those that vanish meanwhile do not count."""
    return sum(
        _stat_size(Path(parent) / name) for parent, _, names in os.walk(folder) for name in names
    )


def _is_stale(folder: Path, working: Collection[Process]) -> bool:
    process = _read_owner(folder.name)
    if process is None:
        return False
    if process.is_dead():
        return True
    if not process.is_elsewhere() or process in working:
        return False
    return time.time() - _last_change(folder) > ABANDONED_S


def _spell_owner(process: Process) -> str:
    return f"{process.host}~{process.pid}~{process.start}"


def _read_owner(name: str) -> Process | None:
    """Read from a temporary folder's name whose it is; None if it is not ours."""
    host, *numbers = name.split("~")
    if len(numbers) != 3 or not all(number.isdecimal() for number in numbers[:2]):
        return None
    return Process(host, int(numbers[0]), int(numbers[1]))


def _last_change(folder: Path) -> float:
    try:
        return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:  # its process is at work on it
        return time.time()


def _stat_size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
