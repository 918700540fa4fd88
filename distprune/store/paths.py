"""Every folder and file name of a store, relative to its root."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StorePaths:
    """Names of a store's folders and files, as POSIX paths relative to its root."""

    entries: str = "entries"
    damaged: str = "damaged"
    temporary: str = "temporary"
    leases: str = "leases"
    manifest_name: str = "manifest.json"

    @property
    def guard(self) -> str:
        """Name the file whose lock protects changes of leases and removals of entries."""
        return f"{self.leases}/guard"

    @property
    def eviction(self) -> str:
        """Name the file whose lock is held by the one process that evicts."""
        return f"{self.leases}/eviction"

    def entry(self, key: str) -> str:
        """Name the folder of an entry."""
        return f"{self.entries}/{key[:2]}/{key}"

    def files(self, key: str, folder: str) -> str:
        """Name the folder of an entry's files; `folder` is "" or a subfolder of the entry."""
        return f"{self.entry(key)}/{folder}" if folder else self.entry(key)

    def manifest(self, key: str) -> str:
        """Name the manifest of an entry."""
        return f"{self.entry(key)}/{self.manifest_name}"

    def set_aside(self, key: str, attempt: int) -> str:
        """Name the folder of the `attempt`-th damaged entry of a key."""
        return f"{self.damaged}/{key}-{attempt}"

    def lease(self, key: str) -> str:
        """Name the lease file of a key."""
        return f"{self.leases}/{key}.json"


PATHS = StorePaths()


def cache_folder(kind: str, uri: str) -> Path:
    """Choose the local folder of this user for copies of what is kept behind a URI.

    Args:
        kind: What is copied: "store" or "studies".
        uri: The URI.

    Returns:
        A folder for each kind and URI; it may not exist yet.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "distprune" / kind / hashlib.sha256(uri.encode()).hexdigest()[:16]
