"""A store behind an fsspec URI: files are uploaded first, the manifest last.

Each commit uploads into a subfolder of its own, so that two processes that commit one key never mix
their files. Files are read through verified copies in a local cache folder.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from distprune.errors import StorageError
from distprune.store.content import DamagedEntryError, check_file
from distprune.store.copies import make_room, mark_copy
from distprune.store.failure import storage_failures
from distprune.store.inventory import EntrySummary, Leftover, LeftoverKind, summarise_entry
from distprune.store.key import is_key
from distprune.store.location import (
    ABANDONED_S,
    LeaseTerms,
    list_temporaries,
    make_folder,
    remove_folder,
    remove_stale_temporaries,
    temporary_folder,
)
from distprune.store.manifest import Manifest, digest_manifest, parse_manifest
from distprune.store.objects import BATCH, Objects
from distprune.store.paths import PATHS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteLocation:
    """A prefix of a remote file system; implements `Location`."""

    objects: Objects
    """The objects below the root."""

    cache: Path
    """Local folder of copies and of temporaries."""

    @property
    def root(self) -> str:
        """The root's URI."""
        return self.objects.uri

    def has(self, key: str) -> bool:
        """Tell whether an entry has a manifest."""
        return self.objects.exists(PATHS.manifest(key))

    def read_manifest(self, key: str) -> bytes | None:
        """Read a manifest; uploads without one are no entry yet."""
        return self.objects.read(PATHS.manifest(key))

    def verify_file(self, manifest: Manifest, name: str) -> None:
        """Check the cached copy; without a good one, download the file and check that."""
        path = self.copy_path(manifest, name)
        record = manifest.file_records[name]
        with suppress(DamagedEntryError):
            check_file(path, name, record)
            return
        with self.temporary_folder() as folder:
            download = folder / "download"
            source = f"{PATHS.files(manifest.key, manifest.folder)}/{name}"
            if not self.objects.download(source, download):
                raise DamagedEntryError(f"'{name}' is missing")
            check_file(download, name, record)
            make_folder(path.parent, str(self.cache))
            download.replace(path)
            make_room(self.cache)

    def copy_path(self, manifest: Manifest, name: str) -> Path:
        """Name the copy in the cache folder."""
        return self.cache / PATHS.files(manifest.key, manifest.folder) / name

    def temporary_folder(self) -> AbstractContextManager[Path]:
        """Make a folder in the cache folder, so that it can become the cached copy."""
        return temporary_folder(self.cache / PATHS.temporary, str(self.cache))

    def choose_folder(self) -> str:
        """Give every commit a subfolder of its own."""
        return secrets.token_hex(8)

    def publish(self, folder: Path, manifest: Manifest) -> bool:
        """Upload the files, then the manifest; remove the files again if that fails."""
        uploads = PATHS.files(manifest.key, manifest.folder)
        is_published = False
        try:
            for name in manifest.files:
                self.objects.upload(folder / name, f"{uploads}/{name}")
            manifest_name = PATHS.manifest(manifest.key)
            is_published = self.objects.create(manifest_name, manifest.to_bytes())
        finally:
            if not is_published:
                self._remove(uploads)
        if is_published:
            self._keep_copy(folder, manifest)
        return is_published

    def set_aside(self, key: str, digest: str | None) -> str | None:
        """Move a damaged entry, unless it is no longer the one that was judged."""
        data = self.read_manifest(key)
        if data is None or digest_manifest(data) != digest:
            return None
        targets = (PATHS.set_aside(key, attempt) for attempt in count(1))
        target = next(name for name in targets if not self.objects.exists(name))
        self.objects.move_below(PATHS.entry(key), target)
        return f"{self.root}/{target}"

    @contextmanager
    def lease(self, key: str, terms: LeaseTerms) -> Iterator[None]:
        """Run the body without exclusion: object stores have neither locks nor sure clocks.

        Two processes may then compute one entry; the first manifest is kept.
        """
        logger.debug("store %s has no leases: entry %s may be computed twice", self.root, key)
        yield

    def keys(self) -> Iterator[str]:
        """Iterate over the manifests below the prefix."""
        yield from sorted(find_manifests(self._find_entries()))

    def mark_used(self, key: str) -> None:
        """Mark the copy alone: an object's time cannot be changed without writing it again."""
        mark_copy(self.cache, key)

    def list_entries(self) -> Iterator[EntrySummary]:
        """Read each manifest; entries were last used when they were written."""
        sizes = self._find_entries()
        manifests = sorted(find_manifests(sizes).items())
        for start in range(0, len(manifests), BATCH):
            batch = manifests[start : start + BATCH]
            found = self.objects.read_many(name for _, name in batch)
            for key, name in batch:
                if name not in found:  # removed meanwhile
                    continue
                summary = summarise_entry(key, found[name])
                yield summary or EntrySummary(
                    key, {}, sum_below(sizes, PATHS.entry(key)), 0.0, 0.0, 0.0, is_readable=False
                )

    def remove(self, entry: EntrySummary) -> bool:
        """Remove the manifest, after which there is no entry, then the files that it names.

        Files that another process uploads for the same key meanwhile are in another subfolder.
        """
        data = self.read_manifest(entry.key)
        if data is None or summarise_entry(entry.key, data) != entry:
            return False
        folder = parse_manifest(data, entry.key).folder
        self.objects.remove(PATHS.manifest(entry.key))
        self.objects.remove_below(PATHS.files(entry.key, folder))
        remove_folder(self.cache / PATHS.entry(entry.key))
        return True

    def eviction(self) -> AbstractContextManager[None]:
        """Run the body without exclusion, as for leases."""
        return nullcontext()

    def list_leftovers(self) -> list[Leftover]:
        """List uploads without a manifest, damaged entries, and temporaries of the cache folder."""
        damaged: dict[str, int] = {}
        for name, size in self.objects.list_sizes(PATHS.damaged).items():
            folder = "/".join(name.split("/")[:2])
            damaged[folder] = damaged.get(folder, 0) + size
        return [
            *list_temporaries(self.cache / PATHS.temporary),
            *self._list_orphans(),
            *(
                Leftover(LeftoverKind.DAMAGED, name, size, is_stale=True)
                for name, size in sorted(damaged.items())
            ),
        ]

    def remove_damaged(self) -> int:
        """Delete the objects of damaged entries."""
        names = [item.name for item in self.list_leftovers() if item.kind is LeftoverKind.DAMAGED]
        for name in names:
            self._remove(name)
        return len(names)

    def count_bytes(self) -> int:
        """Add up the sizes that the file system lists."""
        return sum(self._find_entries().values())

    def check_writable(self) -> None:
        """Write an object below the prefix and delete it."""
        probe = f".probe-{secrets.token_hex(8)}"
        self.objects.write(probe, b"distprune")
        self.objects.remove(probe)

    def remove_stale_temporaries(self) -> int:
        """Remove what killed processes have left in the cache folder and among the uploads."""
        stale = [orphan for orphan in self._list_orphans() if orphan.is_stale]
        for orphan in stale:
            self._remove(orphan.name)
        return len(stale) + remove_stale_temporaries(self.cache / PATHS.temporary, str(self.cache))

    def _remove(self, name: str) -> None:
        try:
            self.objects.remove_below(name)
        except StorageError as error:  # must not hide why the upload failed
            logger.warning("%s", error)

    def _keep_copy(self, folder: Path, manifest: Manifest) -> None:
        target = self.cache / PATHS.files(manifest.key, manifest.folder)
        make_folder(target.parent, str(self.cache))
        with storage_failures(str(self.cache), "keep a copy"):
            folder.rename(target)
            make_room(self.cache)

    def _list_orphans(self) -> list[Leftover]:
        """List folders of uploads that no manifest names: cut off, removed, or still under way.

        An entry with one folder of uploads names that one, or is damaged; so the manifests of the
        others alone are read.
        """
        sizes = self._find_entries()
        manifests = find_manifests(sizes)
        folders = {
            "/".join(name.split("/")[:4]): name.split("/")[2]
            for name in sizes
            if len(name.split("/")) > 4  # entries, first digits, key, folder, file
        }
        counts = Counter(folders.values())
        named = {
            folder if counts[key] == 1 else self._name_files(key)
            for folder, key in folders.items()
            if key in manifests
        }
        return [
            Leftover(
                kind=LeftoverKind.TEMPORARY,
                name=folder,
                num_bytes=sum_below(sizes, folder),
                is_stale=all(self._is_old(name) for name in sizes if name.startswith(f"{folder}/")),
            )
            for folder in sorted(folders)
            if folder not in named
        ]

    def _name_files(self, key: str) -> str | None:
        """Name the folder of an entry's files; None if its manifest does not tell."""
        data = self.read_manifest(key)
        with suppress(DamagedEntryError):
            return None if data is None else PATHS.files(key, parse_manifest(data, key).folder)
        return None

    def _is_old(self, name: str) -> bool:
        """Tell whether an upload is certainly no longer under way."""
        age = self.objects.find_age(name)
        return age is not None and age > ABANDONED_S

    def _find_entries(self) -> dict[str, int]:
        """Return the sizes of all objects of entries, by name."""
        return self.objects.list_sizes(PATHS.entries)


def find_manifests(names: Iterable[str]) -> dict[str, str]:
    """Return the names of manifests among those of objects, by key."""
    return {
        name.split("/")[-2]: name
        for name in names
        if name.endswith(f"/{PATHS.manifest_name}") and is_key(name.split("/")[-2])
    }


def sum_below(sizes: dict[str, int], folder: str) -> int:
    """Add up the sizes of the objects below a name."""
    return sum(size for name, size in sizes.items() if name.startswith(f"{folder}/"))
