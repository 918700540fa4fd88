"""Objects below an fsspec URI: read and written whole, and tried again while trouble may pass.

Object stores have neither renames nor locks. What is built on them here needs two things alone: an
object appears whole or not at all, and `create` never replaces one, so that of two writers of a
name exactly one succeeds.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from distprune.errors import StorageError
from distprune.store.failure import advise_remote, describe_failure

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

PATIENCE_S = 120.0
"""How long an operation is tried again on a storage that has answered before."""

FIRST_PATIENCE_S = 8.0
"""The same on one that has never answered this process: its name is probably wrong."""

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
"""Pauses between attempts; each is twice as long as the one before."""

BATCH = 1000
"""Objects that are asked for side by side."""

FLAT = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"}
"""Protocols without folders. s3fs would make a bucket that is not there, as after a slip."""

_LASTING = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    NotImplementedError,
    ImportError,
    TypeError,
    ValueError,
)
_LASTING_NUMBERS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EPERM,
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENAMETOOLONG,
}

_answered: set[str] = set()


@dataclass(frozen=True)
class Objects:
    """The objects below a prefix; names are relative to it, with slashes.

    Every method raises `StorageError` where the storage refuses, or does not answer for long.
    """

    uri: str
    """The prefix as the user gave it, without a slash at its end."""

    filesystem: Any
    """The fsspec file system."""

    prefix: str
    """The prefix as the file system names it, without a slash at its end."""

    def below(self, name: str) -> Objects:
        """Return the objects below a longer prefix."""
        return Objects(f"{self.uri}/{name}", self.filesystem, f"{self.prefix}/{name}")

    def read(self, name: str) -> bytes | None:
        """Return what an object holds; None if there is none."""
        call, path, options = self.filesystem.cat_file, self._path(name), self._read_options
        what = f"read '{name}'"
        try:
            return bytes(self._try(what, lambda: call(path, **options), FileNotFoundError))
        except FileNotFoundError:
            return None

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read objects side by side, where the file system can; leave out those that are gone."""
        left, found = list(names), dict[str, bytes]()
        while left:
            batch, left = left[:BATCH], left[BATCH:]
            what = f"read '{batch[0]}' and {len(batch) - 1} others"
            found |= self._try(what, partial(self._read_batch, batch))
        return found

    def exists(self, name: str) -> bool:
        """Tell whether there is an object."""
        call, path = self.filesystem.exists, self._path(name)
        return bool(self._try(f"look up '{name}'", lambda: call(path)))

    def write(self, name: str, data: bytes) -> None:
        """Write an object, in place of one that is there."""
        self._try(f"write '{name}'", lambda: self._put(name, data))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object where there is none.

        An attempt that is repeated can meet what the one before has written although its answer was
        lost. So `data` has to tell its writer from all others.

        Returns:
            Whether the object is this one.
        """
        try:
            put = self._put
            self._try(f"create '{name}'", lambda: put(name, data, mode="create"), FileExistsError)
        except FileExistsError:
            return self.read(name) == data
        return True

    def upload(self, source: Path, name: str) -> None:
        """Write a local file as an object."""
        call, path = self.filesystem.put_file, self._path(name)
        self._try(f"upload '{name}'", lambda: call(str(source), path))

    def download(self, name: str, target: Path) -> bool:
        """Write an object into a local file; False if there is none."""
        call, path = self.filesystem.get_file, self._path(name)
        try:
            self._try(f"download '{name}'", lambda: call(path, str(target)), FileNotFoundError)
        except FileNotFoundError:
            return False
        return True

    def list_sizes(self, name: str = "") -> dict[str, int]:
        """Return the sizes of all objects below the prefix, or below `name` in it, by name."""
        call, path = self.filesystem.find, self._path(name) if name else self.prefix
        try:
            found = self._try("list", lambda: call(path, detail=True), FileNotFoundError)
        except FileNotFoundError:
            return {}
        return {self._name(path): int(facts["size"] or 0) for path, facts in found.items()}

    def list_folders(self) -> list[str]:
        """Return the first parts of the names of those objects whose names have several."""
        call = self.filesystem.ls
        try:
            found = self._try("list", lambda: call(self.prefix, detail=True), FileNotFoundError)
        except FileNotFoundError:
            return []
        return sorted(self._name(facts["name"]) for facts in found if facts["type"] == "directory")

    def find_age(self, name: str) -> float | None:
        """Return how many seconds ago an object was written; None where nothing tells."""
        call, path = self.filesystem.modified, self._path(name)
        silent = (FileNotFoundError, NotImplementedError)
        try:
            modified: datetime = self._try(f"look up '{name}'", lambda: call(path), *silent)
        except silent:
            return None
        if modified.tzinfo is None:
            modified = modified.replace(tzinfo=UTC)
        return (datetime.now(UTC) - modified).total_seconds()

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        call, path = self.filesystem.rm_file, self._path(name)
        try:
            self._try(f"remove '{name}'", lambda: call(path), FileNotFoundError)
        except FileNotFoundError:
            return

    def remove_below(self, name: str) -> None:
        """Remove all objects below a name."""
        call, path = self.filesystem.rm, self._path(name)
        try:
            self._try(f"remove '{name}'", lambda: call(path, recursive=True), FileNotFoundError)
        except FileNotFoundError:
            return

    def move_below(self, name: str, target: str) -> None:
        """Move all objects below a name to below another: all are there before the first goes."""
        names = list(self.list_sizes(name))
        sources = [self._path(source) for source in names]
        targets = [self._path(target + source.removeprefix(name)) for source in names]
        if names:
            self._try(f"move '{name}'", lambda: self.filesystem.copy(sources, targets))
            self.remove_below(name)

    @property
    def _read_options(self) -> dict[str, int]:
        """Keep s3fs from asking for the size of each object before it reads it."""
        return {"max_concurrency": 1} if self.uri.startswith(("s3:", "s3a:")) else {}

    def _path(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def _name(self, path: str) -> str:
        return path.rstrip("/").removeprefix(f"{self.prefix}/")

    def _read_batch(self, names: list[str]) -> dict[str, bytes]:
        paths = [self._path(name) for name in names]
        call = self.filesystem.cat_ranges
        answers = call(paths, None, None, on_error="return", **self._read_options)
        found = {}
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, FileNotFoundError):
                continue
            if isinstance(answer, Exception):
                raise answer
            found[name] = bytes(answer)
        return found

    def _put(self, name: str, data: bytes, **options: str) -> None:
        path = self._path(name)
        protocol = self.filesystem.protocol
        if FLAT.isdisjoint([protocol] if isinstance(protocol, str) else protocol):
            self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            self.filesystem.pipe_file(path, data, **options)
        except OSError as error:
            if _is_taken(error):
                raise FileExistsError(path) from error
            raise

    def _try(self, action: str, call: Callable[[], Result], *answers: type[Exception]) -> Result:
        """Call the file system; try again while trouble may pass. `answers` are no trouble.

        Raises:
            StorageError: It refused, or did not answer for long.
        """
        server = "/".join(self.uri.split("/", 3)[:3])
        begun, pause = time.monotonic(), FIRST_PAUSE_S
        while True:
            try:
                result = call()
            # Each file system has errors of its own, as for credentials; not all are OSErrors.
            except Exception as error:
                if isinstance(error, answers):
                    _answered.add(server)
                    raise
                patience = PATIENCE_S if server in _answered else FIRST_PATIENCE_S
                if _lasts(error) or time.monotonic() - begun + pause > patience:
                    advice = advise_remote(error)
                    raise StorageError(describe_failure(self.uri, action, error, advice)) from error
                if pause == FIRST_PAUSE_S:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    logger.warning(
                        "storage '%s': cannot %s (%s); trying again for up to %g s",
                        *(self.uri, action, reason, patience),
                    )
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                _answered.add(server)
                return result


def _lasts(error: Exception) -> bool:
    """Tell whether trying again is in vain."""
    return isinstance(error, _LASTING) or getattr(error, "errno", None) in _LASTING_NUMBERS


def _is_taken(error: OSError) -> bool:
    """Tell whether S3 refused to create an object that is there; not all servers say it alike."""
    response = getattr(error.__cause__, "response", None) or {}
    return bool(response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 412)
