"""From the text that a user gives as a storage location to a `Location`."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from distprune.core.credentials import has_credentials, hide_credentials
from distprune.errors import StorageError
from distprune.store.local import LocalLocation
from distprune.store.location import Location
from distprune.store.objects import Objects
from distprune.store.paths import cache_folder
from distprune.store.remote import RemoteLocation

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s?#][^\s?#]*")


def open_location(root: str, cache: str | None) -> Location:
    """Find out where a store lives; touches neither disk nor network.

    Args:
        root: A local path, relative ones from the working folder of this moment, or a URI.
        cache: Local folder for the copies of a remote store's files; None chooses one below the
            user's cache folder.

    Raises:
        StorageError: The text is empty, or nothing installed knows such URIs.
    """
    if not root.strip():
        raise StorageError(f"storage location {root!r} is empty; give a folder or a URI")
    if not is_remote(root):
        return LocalLocation(local_folder(root))
    folder = (
        Path(cache).expanduser().absolute() if cache else cache_folder("store", root.rstrip("/"))
    )
    return RemoteLocation(open_objects(root), folder)


def is_remote(root: str) -> bool:
    """Tell whether a location is a URI of something that is not mounted here."""
    return "://" in root and not root.startswith(("file://", "local://"))


def local_folder(root: str) -> Path:
    """Return the absolute folder that a path, or a file:// URI, names.

    Raises:
        StorageError: The URI names no absolute folder of this machine.
    """
    if "://" not in root:
        return Path(root).expanduser().absolute()
    parts = urlsplit(root)
    folder = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not folder.is_absolute():
        raise StorageError(f"storage '{root}' is not absolute; write file:///folder or a path")
    return folder


def explain_bad_location(root: str) -> str | None:
    """Say in a few words which rule a location breaks; None = none."""
    if not root.strip():
        return "must be the path of a folder, or a URI such as s3://bucket/prefix"
    if has_credentials(root):
        return "must hold no user and no password; credentials belong in the environment"
    if is_remote(root) and not _URI.fullmatch(root):
        return "must be a URI such as s3://bucket/prefix, without spaces, '?' and '#'"
    return None


def open_objects(uri: str) -> Objects:
    """Return the objects below a URI; touches neither disk nor network.

    Raises:
        StorageError: It is none, or nothing installed knows such URIs.
    """
    import fsspec

    problem = explain_bad_location(uri)
    if problem is not None:
        raise StorageError(f"storage '{hide_credentials(uri)}': {problem}")
    try:
        # A cached listing would hide what other processes have committed.
        filesystem, prefix = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"storage '{uri}' cannot be opened: {error}; install its file system (for s3:// "
            "distprune[s3]) or use a path"
        ) from error
    if hasattr(filesystem, "retries"):
        # Of s3fs, on top of botocore's: a server that hangs would be asked 25 times 15 seconds.
        filesystem.retries = 1
    return Objects(uri.rstrip("/"), filesystem, prefix.rstrip("/"))
