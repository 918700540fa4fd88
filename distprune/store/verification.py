"""Verification of entries against their manifests, once per process and entry.

What was verified is remembered with the size, time and inode of each file, so that files that
change later in the life of the process are verified again.
"""

from __future__ import annotations

from typing import TypeAlias

from distprune.store.location import Location
from distprune.store.manifest import Manifest, digest_manifest

Signature: TypeAlias = tuple[tuple[int, int, int], ...]

_verified: dict[tuple[str, str], Signature] = {}


def verify_entry(location: Location, manifest: Manifest) -> None:
    """Check every file of an entry, unless this process has done so and nothing changed.

    Args:
        location: Where the entry lives.
        manifest: Its manifest.

    Raises:
        DamagedEntryError: A file is missing, or has another size or SHA-256.
    """
    signature = _take_signature(location, manifest)
    if signature is not None and _verified.get(_identity(location, manifest)) == signature:
        return
    for name in manifest.files:
        location.verify_file(manifest, name)
    remember_entry(location, manifest)


def remember_entry(location: Location, manifest: Manifest) -> None:
    """Note that an entry's files, as they are now, are right."""
    signature = _take_signature(location, manifest)
    if signature is not None:
        _verified[_identity(location, manifest)] = signature


def _identity(location: Location, manifest: Manifest) -> tuple[str, str]:
    return location.root, digest_manifest(manifest.to_bytes())


def _take_signature(location: Location, manifest: Manifest) -> Signature | None:
    """Describe the files as they are; None if one is missing."""
    try:
        found = [location.copy_path(manifest, name).stat() for name in manifest.files]
    except (FileNotFoundError, NotADirectoryError):
        return None
    return tuple((file.st_size, file.st_mtime_ns, file.st_ino) for file in found)
