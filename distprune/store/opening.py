"""From the text that a user gives as a storage location to a `Location`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from distprune.errors import StorageError
from distprune.store.local import LocalLocation
from distprune.store.location import Location
from distprune.store.paths import default_cache
from distprune.store.remote import RemoteLocation


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
    if "://" not in root:
        return LocalLocation(Path(root).expanduser().absolute())
    if root.startswith(("file://", "local://")):
        return LocalLocation(_folder_of_uri(root))
    folder = Path(cache).expanduser().absolute() if cache else default_cache(root)
    return _open_remote(root, folder)


def _folder_of_uri(root: str) -> Path:
    parts = urlsplit(root)
    folder = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not folder.is_absolute():
        raise StorageError(f"storage '{root}' is not absolute; write file:///folder or a path")
    return folder


def _open_remote(root: str, cache: Path) -> RemoteLocation:
    import fsspec

    try:
        # A cached listing would hide what other processes have committed.
        filesystem, prefix = fsspec.core.url_to_fs(root, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"storage '{root}' cannot be opened: {error}; install its file system or use a path"
        ) from error
    return RemoteLocation(root, filesystem, prefix.rstrip("/"), cache)
