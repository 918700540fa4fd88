"""The store: entries by content key, committed whole or not at all, verified before use."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from distprune.errors import StorageError
from distprune.store.content import DamagedEntryError, record_files
from distprune.store.entry import Entry
from distprune.store.failure import storage_failures, writer_failures
from distprune.store.inventory import EntrySummary, Leftover
from distprune.store.key import JSON, PlainJSON, check_key, plain_json
from distprune.store.location import LEASE_EXPIRY_S, LeaseTerms, Location
from distprune.store.manifest import Manifest, digest_manifest, parse_manifest
from distprune.store.opening import open_location
from distprune.store.verification import remember_entry, verify_entry

logger = logging.getLogger(__name__)

_PUBLISH_ATTEMPTS = 5


@dataclass(frozen=True)
class StoreStatistics:
    """How much a store holds; damaged entries and temporaries do not count."""

    num_entries: int
    """Entries with a manifest."""

    num_bytes: int
    """Size of all their files, manifests included."""


@dataclass(frozen=True)
class _Damage:
    """What is wrong with an entry; `digest` is that of its manifest, where it could be read."""

    digest: str | None
    error: DamagedEntryError


class _TakenOverError(StorageError):
    """This process was silent for so long that its lease was broken, and its files were removed."""


class Store:
    """Entries by content key below a local folder or an fsspec URI.

    Opening touches nothing. Stores can be pickled, and opened again by root and cache.

    Args:
        root: A local path, or a URI such as file:///data/store, memory://store, s3://bucket/store.
        cache: Local folder for copies of a remote store's files; None chooses one below the user's
            cache folder. Local stores have no copies.

    Raises:
        StorageError: The root is empty, or nothing installed knows such URIs.
    """

    def __init__(self, root: str, cache: str | None = None) -> None:
        self._location: Location = open_location(root, cache)
        self._cache = cache

    def __reduce__(self) -> tuple[type[Store], tuple[str, str | None]]:
        return Store, (self.root, self._cache)

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    @property
    def root(self) -> str:
        """The absolute path or the URI of the store."""
        return self._location.root

    def has(self, key: str) -> bool:
        """Tell whether an entry is committed, without verifying it.

        Raises:
            StorageError: The store cannot be read.
        """
        check_key(key)
        with storage_failures(self.root, f"look up entry {key}"):
            return self._location.has(key)

    def find(self, key: str) -> Entry | None:
        """Find an entry, verify it, and note in a local store that it was used.

        The sizes and digests of all files are checked, once per process while the files do not
        change; files of a remote store are downloaded for that. A damaged entry is set aside with
        a warning.

        Returns:
            The entry; None if there is none, or none that can be used.

        Raises:
            StorageError: The store cannot be read.
        """
        found = self._examine(key, self._use)
        if isinstance(found, _Damage):
            return self._replace_damaged(key, found)
        return None if found is None else Entry(self._location, found)

    def commit(self, key: str, write: Callable[[Path], None], record: Mapping[str, JSON]) -> Entry:
        """Make an entry, whole or not at all.

        If another process has committed the key meanwhile, its entry is kept and this one dropped.

        Args:
            key: Content key of the entry.
            write: Fills the empty local folder that it is given; plain files and subfolders only.
            record: What to keep in the manifest, for lineage; JSON.

        Returns:
            The entry that the store now has.

        Raises:
            StorageError: The store is full, read-only, forbidden or unreachable.
            TypeError: The record is not JSON.
            ValueError: The key is none, the record holds NaN, or a file is not a plain file.
        """
        check_key(key)
        values = cast("dict[str, PlainJSON]", plain_json(record, "record"))
        action = f"commit entry {key}"
        with self._location.temporary_folder() as folder, self._noticing_removal(key, folder):
            started = time.monotonic()
            with writer_failures(str(folder.parent), action, folder):
                write(folder)
            seconds = time.monotonic() - started
            with storage_failures(self.root, action):
                manifest = Manifest(
                    key=key,
                    values=values,
                    file_records=record_files(folder),
                    folder=self._location.choose_folder(),
                    created=datetime.now(UTC).isoformat(),
                    seconds=round(seconds, 3),
                    host=platform.node(),
                )
                return self._publish(folder, manifest)

    def get_or_commit(
        self, key: str, write: Callable[[Path], None], record: Mapping[str, JSON]
    ) -> Entry:
        """Find an entry, or make it while holding its lease, so that one process does the work.

        Args:
            key: Content key of the entry.
            write: As for `commit`; not called if the entry is there.
            record: As for `commit`.

        Raises:
            StorageError: As for `commit`.
            TypeError: As for `commit`.
            ValueError: As for `commit`.
        """
        while True:
            entry = self.find(key)
            if entry is not None:
                return entry
            with suppress(_TakenOverError), self.lease(key):
                return self.find(key) or self.commit(key, write, record)

    @contextmanager
    def lease(
        self,
        key: str,
        *,
        timeout_s: float | None = None,
        poll_s: float = 0.2,
        expiry_s: float = LEASE_EXPIRY_S,
    ) -> Iterator[None]:
        """Hold the lease of a key, which one thread of one process of a local store can at a time.

        Remote stores have no leases: the body runs at once, and an entry may be computed twice.

        Args:
            key: Content key of the entry that the body computes.
            timeout_s: Longest wait in seconds; None waits for as long as the owner lives.
            poll_s: Seconds between two looks at a lease that another process holds.
            expiry_s: Seconds of silence after which an owner counts as gone; the same for all
                processes of a store.

        Raises:
            StorageError: The timeout passed, or the store cannot be written.
        """
        check_key(key)
        with self._location.lease(key, LeaseTerms(timeout_s, poll_s, expiry_s)):
            yield

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of all committed entries, sorted."""
        return self._location.keys()

    def list_entries(self) -> Iterator[EntrySummary]:
        """Summarise all entries, those that cannot be read too, sorted by key; reads manifests.

        Raises:
            StorageError: The store cannot be read.
        """
        return self._location.list_entries()

    def count_bytes(self) -> int:
        """Add up the sizes of all files of entries, manifests included."""
        return self._location.count_bytes()

    def verify(self, key: str) -> str | None:
        """Check the digests of all files of an entry anew; set a damaged entry aside.

        This is no use of the entry. A remote store's files are downloaded where there is no copy.

        Returns:
            What was wrong with it; None if it is whole, or gone.

        Raises:
            StorageError: The store cannot be read.
        """
        found = self._examine(key, self._verify_files)
        if not isinstance(found, _Damage):
            return None
        is_gone = self._location.set_aside(key, found.digest) is None
        return None if is_gone else str(found.error)

    def remove(self, entry: EntrySummary) -> bool:
        """Remove an entry whole, unless it was used or replaced since it was summarised.

        An entry whose lease is held stays too. Who has found the entry before either has its files
        open and reads them to the end, or gets a `StorageError` from `Entry.path` and computes it
        again. In remote stores nothing shows that an entry was used.

        Returns:
            Whether it was removed.

        Raises:
            StorageError: The store cannot be written.
        """
        return self._location.remove(entry)

    def eviction(self) -> AbstractContextManager[None]:
        """Keep other processes of a local store from evicting while the body does.

        Raises:
            StorageError: The store cannot be written.
        """
        return self._location.eviction()

    def list_leftovers(self) -> list[Leftover]:
        """List what is no entry and takes space: temporaries and damaged entries.

        Raises:
            StorageError: The store cannot be read.
        """
        return self._location.list_leftovers()

    def remove_damaged(self) -> int:
        """Remove the damaged entries that were set aside.

        Returns:
            Number of entries removed.

        Raises:
            StorageError: One cannot be removed.
        """
        return self._location.remove_damaged()

    def statistics(self) -> StoreStatistics:
        """Count entries and bytes; reads every folder of the store."""
        return StoreStatistics(sum(1 for _ in self.keys()), self.count_bytes())

    def check_writable(self) -> None:
        """Make the root if it is not there, and write and delete a file in it.

        Raises:
            StorageError: That fails.
        """
        self._location.check_writable()

    def remove_stale_temporaries(self) -> int:
        """Remove what killed processes have left half written or half removed.

        Returns:
            Number of folders removed.

        Raises:
            StorageError: One cannot be removed.
        """
        return self._location.remove_stale_temporaries()

    @contextmanager
    def _noticing_removal(self, key: str, folder: Path) -> Iterator[None]:
        """Tell an error that comes of it that another process has removed the folder meanwhile."""
        try:
            yield
        except Exception as error:
            if folder.exists() or self.has(key):
                raise
            raise _TakenOverError(
                f"commit entry {key}: this process gave no sign of life for {LEASE_EXPIRY_S:g} s, "
                "so another one removed what it had written; do it again"
            ) from error

    def _publish(self, folder: Path, manifest: Manifest) -> Entry:
        for _ in range(_PUBLISH_ATTEMPTS):
            if self._location.publish(folder, manifest):
                remember_entry(self._location, manifest)
                return Entry(self._location, manifest)
            theirs = self.find(manifest.key)
            if theirs is not None:
                return theirs
        raise StorageError(
            f"storage '{self.root}': entry {manifest.key} is damaged and cannot be replaced; "
            "move its folder away"
        )

    def _examine(self, key: str, check: Callable[[Manifest], None]) -> Manifest | _Damage | None:
        """Read an entry's manifest and check the entry; None if there is none.

        Raises:
            StorageError: The store cannot be read.
        """
        check_key(key)
        digest = None
        try:
            with storage_failures(self.root, f"read entry {key}"):
                data = self._location.read_manifest(key)
                if data is None:
                    return None
                digest = digest_manifest(data)
                manifest = parse_manifest(data, key)
                check(manifest)
        except DamagedEntryError as error:
            return _Damage(digest, error)
        return manifest

    def _use(self, manifest: Manifest) -> None:
        # Before the files are read, which can take long: nobody removes it from now on.
        self._location.mark_used(manifest.key)
        verify_entry(self._location, manifest)

    def _verify_files(self, manifest: Manifest) -> None:
        for name in manifest.files:
            self._location.verify_file(manifest, name)

    def _replace_damaged(self, key: str, damage: _Damage) -> Entry | None:
        """Set a damaged entry aside; find the one that another process has put there instead."""
        try:
            target = self._location.set_aside(key, damage.digest)
        except StorageError as error:
            logger.warning("entry %s is damaged (%s) and not used; %s", key, damage.error, error)
            return None
        if target is None:
            return self.find(key)
        logger.warning(
            "storage '%s': entry %s is damaged (%s); set aside as '%s', it will be computed again",
            *(self.root, key, damage.error, target),
        )
        return None
