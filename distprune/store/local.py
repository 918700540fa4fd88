"""A store on a mounted file system: folders are renamed into place."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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
from distprune.store.key import is_key
from distprune.store.lease import exclusive, hold_lease
from distprune.store.location import (
    LeaseTerms,
    make_folder,
    remove_stale_temporaries,
    temporary_folder,
)
from distprune.store.manifest import Manifest, digest_manifest
from distprune.store.paths import PATHS


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
        try:
            return (self.folder / PATHS.manifest(key)).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            pass
        if (self.folder / PATHS.entry(key)).exists():
            raise DamagedEntryError(f"'{PATHS.manifest_name}' is missing")
        return None

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
        with hold_lease(path, self.folder / PATHS.guard, terms):
            yield

    def keys(self) -> Iterator[str]:
        """Iterate over the entries' folders."""
        for folder in sorted((self.folder / PATHS.entries).glob("??/*")):
            if is_key(folder.name) and (folder / PATHS.manifest_name).is_file():
                yield folder.name

    def count_bytes(self) -> int:
        """Add up what the entries' files occupy."""
        walk = os.walk(self.folder / PATHS.entries)
        return sum(_size(Path(folder) / name) for folder, _, names in walk for name in names)

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
        return remove_stale_temporaries(self.folder / PATHS.temporary, self.root)

    def _digest_of(self, key: str) -> str | None:
        try:
            data = self.read_manifest(key)
        except DamagedEntryError:
            return None
        return None if data is None else digest_manifest(data)

    def _asides(self, key: str) -> Iterator[Path]:
        return (self.folder / PATHS.set_aside(key, attempt) for attempt in count(1))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        make_folder(self.folder / PATHS.leases, self.root)
        with exclusive(self.folder / PATHS.guard):
            yield


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # moved meanwhile
        return 0
