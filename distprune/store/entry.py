"""A committed, verified entry of a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from distprune.errors import StorageError
from distprune.store.content import DamagedEntryError
from distprune.store.failure import storage_failures
from distprune.store.key import JSON, PlainJSON
from distprune.store.location import Location
from distprune.store.manifest import Manifest


@dataclass(frozen=True)
class Entry:
    """What `Store.find` and `Store.commit` give: a record and files that were verified."""

    location: Location
    """Where the entry lives."""

    manifest: Manifest
    """What the entry holds."""

    @property
    def key(self) -> str:
        """The entry's content key."""
        return self.manifest.key

    @property
    def record(self) -> Mapping[str, JSON]:
        """The record that was committed with the files, read-only."""
        return self.manifest.record

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files, sorted, as in "train/data.arrow"; without the manifest."""
        return self.manifest.files

    @property
    def seconds(self) -> float:
        """Wall time that the entry's files took to make: what finding them instead has saved."""
        return self.manifest.seconds

    @property
    def host(self) -> str:
        """Name of the host that made the entry's files; "" if it was not noted."""
        return self.manifest.host

    @property
    def num_bytes(self) -> int:
        """Size of all files, the manifest not counted."""
        return self.manifest.num_bytes

    def path(self, name: str) -> Path:
        """Give the local path of a file; never write to it.

        Args:
            name: One of `files`.

        Returns:
            The file itself in a local store; a verified local copy for a remote one.

        Raises:
            StorageError: The entry has no such file, or it vanished since the entry was found.
        """
        if name not in self.manifest.file_records:
            held = ", ".join(self.files) or "none"
            raise StorageError(f"entry {self.key} has no file '{name}'; its files: {held}")
        path = self.location.copy_path(self.manifest, name)
        with storage_failures(self.location.root, f"read entry {self.key}"):
            if not path.is_file():
                self._restore(name)
        return path

    def read_json(self, name: str) -> PlainJSON:
        """Read a JSON file of the entry.

        Args:
            name: One of `files`.

        Raises:
            StorageError: The entry has no such file, or it is not JSON.
        """
        path = self.path(name)
        with storage_failures(self.location.root, f"read entry {self.key}"):
            data = path.read_bytes()
        try:
            return cast(PlainJSON, json.loads(data))
        except ValueError as error:
            raise StorageError(
                f"file '{name}' of entry {self.key} is not JSON ({error}); use path()"
            ) from error

    def _restore(self, name: str) -> None:
        try:
            self.location.verify_file(self.manifest, name)
        except DamagedEntryError as error:
            raise StorageError(
                f"entry {self.key} was removed or damaged since it was found ({error}); find it "
                "again, or compute it again"
            ) from error
