"""Files of an entry on a local disk: names, sizes, digests, and making them durable."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from distprune.store.paths import PATHS


class DamagedEntryError(Exception):
    """An entry is not what its manifest says; never leaves the store."""


@dataclass(frozen=True)
class FileRecord:
    """What a manifest knows about one file."""

    size: int
    """Length in bytes."""

    sha256: str
    """64 hexadecimal digits."""


def check_file_name(name: str) -> None:
    """Refuse names that could lead out of an entry or hide its manifest.

    Raises:
        ValueError: The name is absolute, not in its shortest POSIX form, holds "..", or is the
            manifest's.
    """
    path = PurePosixPath(name)
    is_inside = name not in ("", ".") and not path.is_absolute() and ".." not in path.parts
    if not is_inside or str(path) != name or "\0" in name:
        raise ValueError(f"file name {name!r} must be relative, without '..', as in 'train/a.json'")
    if name == PATHS.manifest_name:
        raise ValueError(f"file name {name!r} is the store's own; choose another")


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Make every file below a folder durable and take its size and digest.

    Files get the folder's permissions, so that all users of a shared store can read them.

    Args:
        folder: The folder; subfolders count, empty ones are passed over.

    Returns:
        Name relative to the folder -> record, sorted by name.

    Raises:
        ValueError: Something in it is neither a file nor a folder, or has a forbidden name.
    """
    records: dict[str, FileRecord] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"file {name!r} of an entry is not a plain file; write a copy of it")
        check_file_name(name)
        records[name] = _record_durably(path, folder.stat().st_mode & 0o666)
    for subfolder in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        make_folder_durable(subfolder)
    return records


def check_file(path: Path, name: str, expected: FileRecord) -> None:
    """Compare a file with its record, size first.

    Raises:
        DamagedEntryError: The file is missing, has another size or other content.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != expected.size:
                raise DamagedEntryError(f"'{name}' has {size} bytes instead of {expected.size}")
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DamagedEntryError(f"'{name}' is missing") from error
    if digest != expected.sha256:
        raise DamagedEntryError(f"'{name}' has SHA-256 {digest} instead of {expected.sha256}")


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def make_folder_durable(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot synchronise folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _record_durably(path: Path, mode: int) -> FileRecord:
    with path.open("rb") as stream:
        # Some writers make private files; whoever may enter the folder may read its files.
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())
        size = os.fstat(stream.fileno()).st_size
        return FileRecord(size, hashlib.file_digest(stream, "sha256").hexdigest())
