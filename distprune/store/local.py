"""A store on a mounted file system: folders are renamed into place."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from distprune.store.content import (
    DamagedEntryError,
    check_file,
    make_folder_durable,
    write_durably,
)
from distprune.store.failure import storage_failures
from distprune.store.inventory import EntrySummary, Leftover, LeftoverKind, summarise_entry
from distprune.store.key import is_key
from distprune.store.lease import exclusive, hold_lease, is_held, read_holders
from distprune.store.location import (
    ABANDONED_S,
    LEASE_EXPIRY_S,
    LeaseTerms,
    list_temporaries,
    make_folder,
    measure_folder,
    remove_folder,
    remove_stale_temporaries,
    remove_temporaries_of,
    temporary_folder,
)
from distprune.store.manifest import Manifest, digest_manifest
from distprune.store.paths import PATHS
from distprune.store.process import Process


@dataclass(frozen=True)
class LocalLocation:
    """A folder of this machine or of a network mount; implements `Location`."""

    folder: Path
    """Absolute path of the root."""

    @property
    def root(self) -> str:
        """The root's path."""
        return str(self.folder)

    def has(self, key: str) -> bool:
        """Tell whether an entry has a manifest."""
        return (self.folder / PATHS.manifest(key)).is_file()

    def read_manifest(self, key: str) -> bytes | None:
        """Read a manifest; an entry folder without one is damaged, since entries come whole."""
        missing = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
        with suppress(*missing):
            return (self.folder / PATHS.manifest(key)).read_bytes()
        self._look_anew(key)
        with suppress(*missing):
            return (self.folder / PATHS.manifest(key)).read_bytes()
        if (self.folder / PATHS.entry(key)).exists():
            raise DamagedEntryError(f"'{PATHS.manifest_name}' is missing")
        return None

    def _look_anew(self, key: str) -> None:
        """Make a network file system forget that an entry was not there, by opening its folders.

        It remembers that for half a minute, while another host may have committed the entry.
        """
        entry = self.folder / PATHS.entry(key)
        for folder in (entry.parent.parent, entry.parent):
            with suppress(OSError):
                os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))

    def verify_file(self, manifest: Manifest, name: str) -> None:
        """Check a file where it lies."""
        check_file(self.copy_path(manifest, name), name, manifest.file_records[name])

    def copy_path(self, manifest: Manifest, name: str) -> Path:
        """Name the file itself; there are no copies."""
        return self.folder / PATHS.files(manifest.key, manifest.folder) / name

    def temporary_folder(self) -> AbstractContextManager[Path]:
        """Make a folder on the file system of the entries, so that it can be renamed."""
        return temporary_folder(self.folder / PATHS.temporary, self.root)

    def choose_folder(self) -> str:
        """Put files beside their manifest."""
        return ""

    def publish(self, folder: Path, manifest: Manifest) -> bool:
        """Write the manifest, synchronise, and rename the folder into place."""
        manifest_path = folder / PATHS.manifest_name
        manifest_path.unlink(missing_ok=True)  # of an attempt before
        write_durably(manifest_path, manifest.to_bytes())
        make_folder_durable(folder)
        target = self.folder / PATHS.entry(manifest.key)
        make_folder(target.parent, self.root)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
        make_folder_durable(target.parent)
        make_folder_durable(target.parent.parent)
        return True

    def set_aside(self, key: str, digest: str | None) -> str | None:
        """Rename a damaged entry, unless it is no longer the one that was judged."""
        entry = self.folder / PATHS.entry(key)
        with storage_failures(self.root, f"set entry {key} aside"), self._exclusive():
            if not entry.exists() or self._digest_of(key) != digest:
                return None
            target = next(path for path in self._asides(key) if not path.exists())
            make_folder(target.parent, self.root)
            entry.rename(target)
        return str(target)

    @contextmanager
    def lease(self, key: str, terms: LeaseTerms) -> Iterator[None]:
        """Hold the lease file of a key."""
        make_folder(self.folder / PATHS.leases, self.root)
        path = self.folder / PATHS.lease(key)
        with hold_lease(path, self.folder / PATHS.guard, terms, self._clear_after):
            yield

    def keys(self) -> Iterator[str]:
        """Iterate over the entries' folders."""
        return (key for key in self._folders() if self.has(key))

    def mark_used(self, key: str) -> None:
        """Touch the manifest; who may only read the store leaves no mark."""
        with suppress(OSError):
            os.utime(self.folder / PATHS.manifest(key))

    def list_entries(self) -> Iterator[EntrySummary]:
        """Read the manifest of each entry's folder."""
        with storage_failures(self.root, "list entries"):
            for key in self._folders():
                summary = self._summarise(key)
                if summary is not None:
                    yield summary

    def remove(self, entry: EntrySummary) -> bool:
        """Rename an entry out of the way under the guard's lock, then delete it.

        The temporary folder that it is renamed into is stale if this process dies meanwhile.
        """
        with (
            self.temporary_folder() as trash,
            storage_failures(self.root, f"remove entry {entry.key}"),
        ):
            with self._exclusive() as guard:
                lease = self.folder / PATHS.lease(entry.key)
                if is_held(lease, guard, LEASE_EXPIRY_S) or self._summarise(entry.key) != entry:
                    return False
                (self.folder / PATHS.entry(entry.key)).rename(trash / entry.key)
            remove_folder(trash)
        return True

    @contextmanager
    def eviction(self) -> Iterator[None]:
        """Hold the lock of those who evict, which the kernel drops when a process dies."""
        make_folder(self.folder / PATHS.leases, self.root)
        with ExitStack() as stack:
            with storage_failures(self.root, "evict"):
                stack.enter_context(exclusive(self.folder / PATHS.eviction))
            yield

    def list_leftovers(self) -> list[Leftover]:
        """List the folders of temporaries and of damaged entries."""
        with storage_failures(self.root, "list leftovers"):
            damaged = [
                Leftover(
                    LeftoverKind.DAMAGED,
                    name=f"{PATHS.damaged}/{folder.name}",
                    num_bytes=measure_folder(folder),
                    is_stale=True,
                )
                for folder in sorted((self.folder / PATHS.damaged).glob("*"))
            ]
            return (
                list_temporaries(self.folder / PATHS.temporary, self._working(ABANDONED_S))
                + damaged
            )

    def remove_damaged(self) -> int:
        """Delete the folders of damaged entries."""
        folders = list((self.folder / PATHS.damaged).glob("*"))
        with storage_failures(self.root, "remove a damaged entry"):
            for folder in folders:
                remove_folder(folder)
        return len(folders)

    def count_bytes(self) -> int:
        """Add up what the entries' files occupy."""
        return measure_folder(self.folder / PATHS.entries)

    def check_writable(self) -> None:
        """Make the root, write a file there and delete it."""
        make_folder(self.folder, self.root)
        probe = self.folder / f".probe-{secrets.token_hex(8)}"
        with storage_failures(self.root, "write a probe file"):
            try:
                write_durably(probe, b"distprune")
            finally:
                probe.unlink(missing_ok=True)

    def remove_stale_temporaries(self) -> int:
        """Remove what killed writers have left."""
        working = self._working(ABANDONED_S)
        return remove_stale_temporaries(self.folder / PATHS.temporary, self.root, working)

    def _folders(self) -> Iterator[str]:
        folders = sorted((self.folder / PATHS.entries).glob("??/*"))
        return (folder.name for folder in folders if is_key(folder.name))

    def _summarise(self, key: str) -> EntrySummary | None:
        """Summarise an entry as it is; None if it is not there."""
        folder = self.folder / PATHS.entry(key)
        try:
            # Opening asks a network file system for the present times; a plain stat may be cached.
            with (folder / PATHS.manifest_name).open("rb") as stream:
                last_used = os.fstat(stream.fileno()).st_mtime
                summary = summarise_entry(key, stream.read(), last_used)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            summary = None
        if summary is not None or not folder.exists():
            return summary
        changed = folder.lstat().st_mtime
        return EntrySummary(key, {}, measure_folder(folder), 0.0, changed, changed, False)

    def _clear_after(self, process: Process) -> None:
        """Remove what a process was writing that is gone, unless another lease shows it alive."""
        if process not in self._working(LEASE_EXPIRY_S):
            remove_temporaries_of(process, self.folder / PATHS.temporary)

    def _working(self, within_s: float) -> set[Process]:
        """Return the processes that have refreshed a lease within so many seconds."""
        holders = read_holders((self.folder / PATHS.leases).glob("*.json"))
        oldest = time.time() - within_s
        return {h.process for h in holders if h.process is not None and h.heartbeat > oldest}

    def _digest_of(self, key: str) -> str | None:
        try:
            data = self.read_manifest(key)
        except DamagedEntryError:
            return None
        return None if data is None else digest_manifest(data)

    def _asides(self, key: str) -> Iterator[Path]:
        return (self.folder / PATHS.set_aside(key, attempt) for attempt in count(1))

    @contextmanager
    def _exclusive(self) -> Iterator[int]:
        make_folder(self.folder / PATHS.leases, self.root)
        with exclusive(self.folder / PATHS.guard) as descriptor:
            yield descriptor
