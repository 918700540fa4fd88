"""What a store needs from the place where it lives, and the local folders of its writers.

Two leaves implement it: `local.py` for mounted file systems, `remote.py` for fsspec URIs.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from distprune.store.failure import storage_failures
from distprune.store.manifest import Manifest
from distprune.store.process import Process, current_process


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

    def count_bytes(self) -> int:
        """Add up the sizes of all files of entries."""

    def check_writable(self) -> None:
        """Write and delete a file; StorageError if that fails."""

    def remove_stale_temporaries(self) -> int:
        """Remove folders of dead processes of this host; returns how many."""


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
    process = current_process()
    token = secrets.token_hex(8)
    folder = parent / f"{process.host}~{process.pid}~{process.start}~{token}"
    make_folder(parent, root)
    try:
        with storage_failures(root, "make a temporary folder"):
            folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_temporaries(parent: Path, root: str) -> int:
    """Remove the temporary folders whose process is dead.

    Args:
        parent: The folder for temporaries.
        root: The storage location, for messages.

    Returns:
        How many were removed. Those of other hosts stay, since nothing tells that they are dead.

    Raises:
        StorageError: One cannot be removed.
    """
    if not parent.is_dir():
        return 0
    stale = [folder for folder in parent.iterdir() if _is_stale(folder.name)]
    for folder in stale:
        with storage_failures(root, "remove a stale temporary folder"):
            shutil.rmtree(folder)
    return len(stale)


def _is_stale(name: str) -> bool:
    host, *numbers = name.split("~")
    if len(numbers) != 3 or not all(number.isdecimal() for number in numbers[:2]):
        return False
    return Process(host, int(numbers[0]), int(numbers[1])).is_dead()
