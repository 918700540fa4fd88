"""The mirror of a study behind a URI, and this machine's working copy of it.

All verbs read and write the working copy. Its small files are copied to the mirror when they
matter to others; its events go there first: one object an event, created and never replaced. So
they are the durable truth, and a second driver that writes an event of the same number is found out
at once. What is made from them, or for this machine alone, stays here: Optuna's journal, what Ray
writes, MLflow's database.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from distprune.core.atomic_file import write_file
from distprune.errors import StorageError, StudyExistsError
from distprune.store.content import check_file_name
from distprune.store.objects import Objects

EVENTS = "history"
"""Where the events are, in the mirror."""

KNOWN = ".mirror.json"
"""File of the working copy with the digests of what the mirror held at the last look."""


class StudyMirror:
    """A study's objects and the folder that they are copied to.

    Args:
        objects: The objects of the study.
        folder: The working copy.
        history: Its file of events.
        lease: The file that a driver of this machine has locked.
        local: How the names begin that stay on this machine.
    """

    def __init__(
        self, objects: Objects, folder: Path, history: Path, lease: Path, local: Sequence[str]
    ) -> None:
        self._objects = objects
        self._folder = folder
        self._history = history
        self._lease = lease
        self._local = (".", *local)
        self._digests: dict[str, str] | None = None

    def pull(self) -> None:
        """Bring the working copy up to date, unless a driver on this machine keeps it so.

        Raises:
            StorageError: The mirror cannot be read, or the working copy cannot be written.
        """
        try:
            self._lease.parent.mkdir(parents=True, exist_ok=True)
            file = self._lease.open("a")
        except OSError as error:
            raise StorageError(
                f"cache {self._lease.parent}: cannot be written ({error.strerror or error}); name "
                "another folder with XDG_CACHE_HOME"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self.update()

    def update(self) -> None:
        """Take what has changed in the mirror since this machine last looked, and all events.

        What has changed here alone stays, to be pushed. Where the working copy is of another study,
        as after `--fresh` elsewhere, nothing of it stays.

        Raises:
            StorageError: The mirror cannot be read, or the working copy cannot be written.
        """
        names = self._objects.list_sizes()
        events = sorted(name for name in names if name.startswith(f"{EVENTS}/"))
        files = self._objects.read_many(name for name in names if self._is_mirrored(name))
        if self._folder.exists() and _identify(files.get("environment.json")) != self._identify():
            shutil.rmtree(self._folder)
        known = self._read_known()
        self._update_events(events, files.get(self._history.name, b""))
        for name, data in files.items():
            here = _read(self._folder / name)
            is_new = here is None or known.get(name) != _digest(data)
            if is_new and here != data and name != self._history.name:
                write_file(self._folder / name, data)
        for name in set(known) - set(files) - {self._history.name}:
            (self._folder / name).unlink(missing_ok=True)
        self._digests = {name: _digest(data) for name, data in files.items()}
        self._write_known()

    def push(self) -> None:
        """Make the files of the mirror those of the working copy, but for the events.

        Nothing happens where a driver on this machine keeps the working copy: it pushes.

        Raises:
            StorageError: The mirror cannot be written.
        """
        if self._digests is None:
            return
        found = {name: (self._folder / name).read_bytes() for name in self._list_files()}
        for name, data in found.items():
            if self._digests.get(name) != _digest(data):
                self._objects.write(name, data)
                self._digests[name] = _digest(data)
        for name in set(self._digests) - set(found):
            self._objects.remove(name)
            del self._digests[name]
        self._write_known()

    def add_event(self, number: int, line: bytes) -> None:
        """Write an event, for good.

        Args:
            number: How many events there were before it.
            line: The event; tells its writer.

        Raises:
            StudyExistsError: There is another event of this number.
            StorageError: The mirror cannot be written.
        """
        if not self._objects.create(_name_event(number), line):
            raise StudyExistsError(
                f"study {self._folder.name!r}: another driver works on it, and has written its "
                f"event {number}; this one ends, and has changed nothing of it; wait for the other"
            )

    def set_aside(self, name: str) -> None:
        """Give the study another name in the mirror; the working copy is gone.

        Raises:
            StorageError: The mirror cannot be written.
        """
        storage, _, own = self._objects.prefix.rpartition("/")
        above = Objects(self._objects.uri.rpartition("/")[0], self._objects.filesystem, storage)
        above.move_below(own, name)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._digests = {}

    def _update_events(self, names: Sequence[str], packed: bytes) -> None:
        """Write the file of events, from what is here or packed already and what is missing."""
        missing = next((n for n, name in enumerate(names) if name != _name_event(n)), None)
        if missing is not None:
            raise StorageError(
                f"study {self._objects.uri}: its event {missing} is missing; restore the object "
                f"{_name_event(missing)}, or begin the study afresh"
            )
        here = _read(self._history) or b""
        lines: list[bytes] = []
        for known in (here, packed):
            whole = [line for line in known.splitlines(keepends=True) if line.endswith(b"\n")]
            if len(lines) < len(whole) <= len(names):
                last = self._objects.read(_name_event(len(whole) - 1))
                lines = whole if last == whole[-1] else lines
        missing_names = names[len(lines) :]
        found = self._objects.read_many(missing_names)
        if len(found) < len(missing_names):
            raise StorageError(
                f"study {self._objects.uri}: changed while it was read; try again in a moment"
            )
        lines += [found[name] for name in missing_names]
        if not lines:
            self._history.unlink(missing_ok=True)
        elif b"".join(lines) != here:
            write_file(self._history, b"".join(lines))

    def _read_known(self) -> dict[str, str]:
        """Return the digests of what the mirror held when this machine last looked."""
        try:
            return dict(json.loads((self._folder / KNOWN).read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def _write_known(self) -> None:
        if self._folder.exists():
            write_file(self._folder / KNOWN, json.dumps(self._digests, indent=1) + "\n")

    def _is_mirrored(self, name: str) -> bool:
        """Tell whether an object is a file of the working copy.

        Raises:
            StorageError: It would be a file outside.
        """
        try:
            check_file_name(name)
        except ValueError as error:
            raise StorageError(
                f"study {self._objects.uri}: its object {name!r} would be a file outside the "
                "study's folder; remove it"
            ) from error
        return not name.startswith((f"{EVENTS}/", *self._local))

    def _list_files(self) -> list[str]:
        paths = (path for path in self._folder.rglob("*") if path.is_file())
        names = (path.relative_to(self._folder).as_posix() for path in paths)
        # Files that are half written have names that begin with a point.
        return sorted(n for n in names if self._is_mirrored(n) and "/." not in n)

    def _identify(self) -> str | None:
        return _identify(_read(self._folder / "environment.json"))


def _name_event(number: int) -> str:
    return f"{EVENTS}/{number:08d}.json"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _identify(environment: bytes | None) -> str | None:
    """Return what tells a study from others of its name; None where nothing does."""
    try:
        return str(json.loads(environment or b"")["study_id"])
    except (ValueError, KeyError, TypeError):
        return None
