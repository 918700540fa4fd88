"""A store behind an fsspec URI: files are uploaded first, the manifest last.

Each commit uploads into a subfolder of its own, so that two processes that commit one key never mix
their files. Files are read through verified copies in a local cache folder.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from distprune.errors import StorageError
from distprune.store.content import DamagedEntryError, check_file
from distprune.store.failure import describe_failure, remote_failures, storage_failures
from distprune.store.key import is_key
from distprune.store.location import (
    LeaseTerms,
    make_folder,
    remove_stale_temporaries,
    temporary_folder,
)
from distprune.store.manifest import Manifest, digest_manifest
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
        yield from sorted(
            path.split("/")[-2]
            for path in self._find_entries()
            if path.endswith(f"/{PATHS.manifest_name}") and is_key(path.split("/")[-2])
        )

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
        """Remove what killed writers and readers have left in the cache folder."""
        return remove_stale_temporaries(self.cache / PATHS.temporary, str(self.cache))

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

    def _find_entries(self) -> dict[str, dict[str, Any]]:
        with remote_failures(self.uri, "list entries"):
            return dict(self.filesystem.find(self._remote(PATHS.entries), detail=True))
