"""What the operating system says about a storage location, as one line that the user can act on."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distprune.errors import StorageError

_ELSEWHERE = "or choose another storage location"
_WRITING = {
    errno.ENOSPC: f"free some space there, {_ELSEWHERE}",
    errno.EDQUOT: f"free some of your quota there, {_ELSEWHERE}",
    errno.EROFS: f"mount it writable, {_ELSEWHERE}",
    errno.EACCES: f"give this user access to it, {_ELSEWHERE}",
    errno.EPERM: f"give this user access to it, {_ELSEWHERE}",
    errno.EIO: f"check the disk or the mount, {_ELSEWHERE}",
    errno.ESTALE: f"mount it again, {_ELSEWHERE}",
    errno.ENOLCK: f"mount it with file locks, {_ELSEWHERE}",
    errno.EOPNOTSUPP: f"mount it with file locks, {_ELSEWHERE}",
}
_FULL = {number: _WRITING[number] for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES)}
_NAMING = {
    errno.ENOTDIR: f"remove the file that stands where a folder should be, {_ELSEWHERE}",
    errno.EEXIST: f"remove the file that stands where a folder should be, {_ELSEWHERE}",
    errno.ENAMETOOLONG: f"shorten the path, {_ELSEWHERE}",
    errno.ELOOP: f"mend its symbolic links, {_ELSEWHERE}",
}
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def storage_failures(root: str, action: str) -> Iterator[None]:
    """Turn an error of the file system into a `StorageError`; let other errors pass.

    Args:
        root: The storage location, for the message.
        action: What is being done, as in "commit entry 12ab".

    Raises:
        StorageError: Full, read-only, forbidden, unreachable, or a file in place of a folder.
    """
    try:
        yield
    except OSError as error:
        advice = _advice(error, _WRITING | _NAMING)
        if advice is None:
            raise
        raise StorageError(describe_failure(root, action, error, advice)) from error


@contextmanager
def writer_failures(root: str, action: str, folder: Path) -> Iterator[None]:
    """Turn a storage error of a caller's writing into a `StorageError`; let its others pass.

    An error that names a file outside the folder is the caller's own and passes. Libraries written
    in Rust, such as safetensors, raise errors of their own that end in "(os error 28)".

    Args:
        root: The storage location, for the message.
        action: What is being done, for the message.
        folder: The folder that the caller fills.

    Raises:
        StorageError: The folder's disk is full, read-only, forbidden or unreachable.
    """
    try:
        yield
    except Exception as error:
        advice = _advice(error, _WRITING)
        if advice is None or _names_file_outside(error, folder):
            raise
        raise StorageError(describe_failure(root, action, error, advice)) from error


def advise_remote(error: Exception) -> str:
    """Return what to do about an error of a remote file system, which often lacks a number."""
    return (
        _advice(error, _FULL) or f"check its address, the credentials and the network, {_ELSEWHERE}"
    )


def describe_failure(root: str, action: str, error: Exception, advice: str) -> str:
    """Say in one line where what failed, why, and what to do."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    filename = getattr(error, "filename", None)
    place = f" at '{filename}'" if filename else ""
    return f"storage '{root}': cannot {action}{place}: {' '.join(reason.split())}; {advice}"


def _advice(error: Exception, table: dict[int, str]) -> str | None:
    if isinstance(error, PermissionError):
        return table[errno.EACCES]
    if isinstance(error, OSError):
        return None if error.errno is None else table.get(error.errno)
    told = _RUST_ERROR.search(str(error))
    return None if told is None else table.get(int(told[1]))


def _names_file_outside(error: Exception, folder: Path) -> bool:
    filename = getattr(error, "filename", None)
    return isinstance(filename, str) and not Path(filename).absolute().is_relative_to(folder)
