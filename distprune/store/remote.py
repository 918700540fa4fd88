"""A store behind an fsspec URI: files are uploaded first, the manifest last.

Each commit uploads into a subfolder of its own, so that two processes that commit one key never mix
their files. Files are read through verified copies in a local cache folder.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from distprune.errors import StorageError
from distprune.store.content import DamagedEntryError, check_file
from distprune.store.failure import describe_failure, remote_failures, storage_failures
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
from distprune.store.paths import PATHS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteLocation:
    """A prefix of a remote file system; implements `Location`."""

    uri: str
    """The root as the user gave it."""

    filesystem: Any
    """The fsspec file system."""

    prefix: str
    """The root as the file system names it, without a slash at its end."""

    cache: Path
    """Local folder of copies and of temporaries."""

    @property
    def root(self) -> str:
        """The root's URI."""
        return self.uri

    def has(self, key: str) -> bool:
        """Tell whether an entry has a manifest."""
        with remote_failures(self.uri, f"look up entry {key}"):
            return bool(self.filesystem.exists(self._remote(PATHS.manifest(key))))

    def read_manifest(self, key: str) -> bytes | None:
        """Read a manifest; uploads without one are no entry yet."""
        with remote_failures(self.uri, f"read entry {key}"):
            try:
                return bytes(self.filesystem.cat_file(self._remote(PATHS.manifest(key))))
            except FileNotFoundError:
                return None

    def verify_file(self, manifest: Manifest, name: str) -> None:
        """Check the cached copy; without a good one, download the file and check that."""
        path = self.copy_path(manifest, name)
        record = manifest.file_records[name]
        with suppress(DamagedEntryError):
            check_file(path, name, record)
            return
        source = self._remote(f"{PATHS.files(manifest.key, manifest.folder)}/{name}")
        with self.temporary_folder() as folder:
            download = folder / "download"
            with remote_failures(self.uri, f"download '{name}' of entry {manifest.key}"):
                try:
                    self.filesystem.get_file(source, str(download))
                except FileNotFoundError as error:
                    raise DamagedEntryError(f"'{name}' is missing") from error
            check_file(download, name, record)
            make_folder(path.parent, str(self.cache))
            download.replace(path)

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
        manifest_path = self._remote(PATHS.manifest(manifest.key))
        uploads = self._remote(PATHS.files(manifest.key, manifest.folder))
        is_published = False
        with remote_failures(self.uri, f"commit entry {manifest.key}"):
            try:
                for name in manifest.files:
                    self.filesystem.put_file(str(folder / name), f"{uploads}/{name}")
                if not self.filesystem.exists(manifest_path):
                    self._write(manifest_path, manifest.to_bytes())
                    is_published = True
            finally:
                if not is_published:
                    self._remove(uploads)
        if is_published:
            self._keep_copy(folder, manifest)
        return is_published

    def set_aside(self, key: str, digest: str | None) -> str | None:
        """Move a damaged entry, unless it is no longer the one that was judged."""
        with remote_failures(self.uri, f"set entry {key} aside"):
            data = self.read_manifest(key)
            if data is None or digest_manifest(data) != digest:
                return None
            targets = (self._remote(PATHS.set_aside(key, attempt)) for attempt in count(1))
            target = next(path for path in targets if not self.filesystem.exists(path))
            self.filesystem.mv(self._remote(PATHS.entry(key)), target, recursive=True)
        return str(self.filesystem.unstrip_protocol(target))

    @contextmanager
    def lease(self, key: str, terms: LeaseTerms) -> Iterator[None]:
        """Run the body without exclusion: object stores have neither locks nor sure clocks.

        Two processes may then compute one entry; the first manifest is kept.
        """
        logger.debug("store %s has no leases: entry %s may be computed twice", self.uri, key)
        yield

    def keys(self) -> Iterator[str]:
        """Iterate over the manifests below the prefix."""
        yield from sorted(self._find_manifests(self._find_entries()))

    def mark_used(self, key: str) -> None:
        """Do nothing: an object's time cannot be changed without writing it again."""

    def list_entries(self) -> Iterator[EntrySummary]:
        """Read each manifest; entries were last used when they were written."""
        objects = self._find_entries()
        for key, path in sorted(self._find_manifests(objects).items()):
            data = self.read_manifest(key)
            if data is None:  # removed meanwhile
                continue
            summary = summarise_entry(key, data)
            if summary is not None:
                yield summary
                continue
            inside = path.rpartition("/")[0]
            size = sum(int(objects[p]["size"]) for p in objects if p.startswith(f"{inside}/"))
            yield EntrySummary(key, {}, size, 0.0, 0.0, 0.0, is_readable=False)

    def remove(self, entry: EntrySummary) -> bool:
        """Remove the manifest, after which there is no entry, then the files that it names.

        Files that another process uploads for the same key meanwhile are in another subfolder.
        """
        with remote_failures(self.uri, f"remove entry {entry.key}"):
            data = self.read_manifest(entry.key)
            if data is None or summarise_entry(entry.key, data) != entry:
                return False
            folder = parse_manifest(data, entry.key).folder
            with suppress(FileNotFoundError):
                self.filesystem.rm_file(self._remote(PATHS.manifest(entry.key)))
            with suppress(FileNotFoundError):
                self.filesystem.rm(self._remote(PATHS.files(entry.key, folder)), recursive=True)
        remove_folder(self.cache / PATHS.entry(entry.key))
        return True

    def eviction(self) -> AbstractContextManager[None]:
        """Run the body without exclusion, as for leases."""
        return nullcontext()

    def list_leftovers(self) -> list[Leftover]:
        """List uploads without a manifest, damaged entries, and temporaries of the cache folder."""
        with remote_failures(self.uri, "list leftovers"):
            damaged = self.filesystem.find(self._remote(PATHS.damaged), detail=True)
        sizes: dict[str, int] = {}
        for path, details in damaged.items():
            name = path.removeprefix(f"{self.prefix}/").split("/")[1]
            sizes[name] = sizes.get(name, 0) + int(details["size"])
        return [
            *list_temporaries(self.cache / PATHS.temporary),
            *self._list_orphans(),
            *(
                Leftover(LeftoverKind.DAMAGED, f"{PATHS.damaged}/{name}", size, is_stale=True)
                for name, size in sorted(sizes.items())
            ),
        ]

    def remove_damaged(self) -> int:
        """Delete the objects of damaged entries."""
        names = [item.name for item in self.list_leftovers() if item.kind is LeftoverKind.DAMAGED]
        for name in names:
            self._remove(self._remote(name))
        return len(names)

    def count_bytes(self) -> int:
        """Add up the sizes that the file system lists."""
        return sum(int(details["size"]) for details in self._find_entries().values())

    def check_writable(self) -> None:
        """Write an object below the prefix and delete it."""
        probe = self._remote(f".probe-{secrets.token_hex(8)}")
        try:
            self._write(probe, b"distprune")
            self.filesystem.rm_file(probe)
        except Exception as error:  # each file system has errors of its own, as for credentials
            advice = "check the address, the credentials and the rights there"
            message = describe_failure(self.uri, "write a probe file", error, advice)
            raise StorageError(message) from error

    def remove_stale_temporaries(self) -> int:
        """Remove what killed processes have left in the cache folder and among the uploads."""
        stale = [orphan for orphan in self._list_orphans() if orphan.is_stale]
        for orphan in stale:
            self._remove(self._remote(orphan.name))
        return len(stale) + remove_stale_temporaries(self.cache / PATHS.temporary, str(self.cache))

    def _remote(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def _write(self, path: str, data: bytes) -> None:
        self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.filesystem.pipe_file(path, data)

    def _remove(self, path: str) -> None:
        try:
            self.filesystem.rm(path, recursive=True)
        except FileNotFoundError:
            pass
        except Exception as error:  # must not hide why the upload failed
            logger.warning("store %s: '%s' cannot be removed: %s", self.uri, path, error)

    def _keep_copy(self, folder: Path, manifest: Manifest) -> None:
        target = self.cache / PATHS.files(manifest.key, manifest.folder)
        make_folder(target.parent, str(self.cache))
        with storage_failures(str(self.cache), "keep a copy"):
            folder.rename(target)

    def _find_manifests(self, objects: Iterable[str]) -> dict[str, str]:
        """Return the paths of manifests among those of objects, by key."""
        return {
            path.split("/")[-2]: path
            for path in objects
            if path.endswith(f"/{PATHS.manifest_name}") and is_key(path.split("/")[-2])
        }

    def _list_orphans(self) -> list[Leftover]:
        """List folders of uploads that no manifest names: cut off, removed, or still under way."""
        objects = self._find_entries()
        uploads: dict[str, list[str]] = {}
        for path in objects:
            parts = path.removeprefix(f"{self.prefix}/").split("/")
            if len(parts) > 4:  # entries, first digits, key, folder, file
                uploads.setdefault("/".join(parts[:4]), []).append(path)
        named = {self._name_files(key) for key in self._find_manifests(objects)}
        return [
            Leftover(
                kind=LeftoverKind.TEMPORARY,
                name=folder,
                num_bytes=sum(int(objects[path]["size"]) for path in paths),
                is_stale=all(self._is_old(path) for path in paths),
            )
            for folder, paths in sorted(uploads.items())
            if folder not in named
        ]

    def _name_files(self, key: str) -> str | None:
        """Name the folder of an entry's files; None if its manifest does not tell."""
        data = self.read_manifest(key)
        with suppress(DamagedEntryError):
            return None if data is None else PATHS.files(key, parse_manifest(data, key).folder)
        return None

    def _is_old(self, path: str) -> bool:
        """Tell whether an upload is certainly no longer under way."""
        try:
            modified = self.filesystem.modified(path)
        except (NotImplementedError, FileNotFoundError):
            return False
        if modified.tzinfo is None:
            modified = modified.replace(tzinfo=UTC)
        return bool((datetime.now(UTC) - modified).total_seconds() > ABANDONED_S)

    def _find_entries(self) -> dict[str, dict[str, Any]]:
        with remote_failures(self.uri, "list entries"):
            return dict(self.filesystem.find(self._remote(PATHS.entries), detail=True))
