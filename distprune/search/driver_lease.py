"""One driver a study: a lock file that the operating system releases, or a lock behind a URI."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from distprune.errors import StorageError, StudyExistsError
from distprune.library.driver_lock import DriverLock
from distprune.library.history import History
from distprune.library.study_folder import StudyFolder
from distprune.library.study_mirror import StudyMirror
from distprune.store.opening import open_objects

READERS_S = 300.0
"""How long a driver waits for those who copy the study to its machine at the moment."""


@dataclass(frozen=True)
class Drive:
    """A study that this process drives.

    Attributes:
        folder: The study.
        lock: Its lock, where it is kept behind a URI.
        mirror: The study there.
    """

    folder: StudyFolder
    lock: DriverLock | None = None
    mirror: StudyMirror | None = None

    def open_history(self) -> History:
        """Return the history to write to; behind a URI its events go there first."""
        return History(self.folder.history, None if self.mirror is None else self)

    def add_event(self, number: int, line: bytes) -> None:
        """Write an event behind the URI, if the study is ours still.

        Raises:
            StudyExistsError: Another driver has taken it over.
            StorageError: The storage cannot be written.
        """
        assert self.lock is not None
        assert self.mirror is not None
        self.lock.check()
        self.mirror.add_event(number, line)

    def save(self) -> None:
        """Copy what has changed to behind the URI, if there is one and the study is ours still.

        Raises:
            StudyExistsError: Another driver has taken it over.
            StorageError: The storage cannot be written.
        """
        if self.lock is not None:
            self.lock.check()
        self.folder.push()


@contextmanager
def drive_study(
    folder: StudyFolder, tell: Callable[[str], None] = lambda text: None
) -> Iterator[Drive]:
    """Be the one driver of a study inside the block, with its working copy up to date.

    Args:
        folder: The study.
        tell: Called with what is waited for.

    Raises:
        StudyExistsError: Another driver works on the study; the message says which.
        StorageError: The storage cannot be written.
    """
    if folder.uri is None or folder.mirror is None:
        with hold_study(folder.lease, folder.name):
            yield Drive(folder)
        return
    lock = DriverLock(open_objects(folder.uri), folder.name)
    lock.take(tell)
    try:
        with hold_study(folder.lease, folder.name, READERS_S):
            folder.mirror.update()
            yield Drive(folder, lock, folder.mirror)
    finally:
        lock.release()


@contextmanager
def hold_study(path: Path, name: str, patience_s: float = 0.6) -> Iterator[None]:
    """Hold the study's lock file inside the block.

    Args:
        path: The lock file.
        name: Name of the study, for messages.
        patience_s: How long to try; who asks if a study runs holds it for a moment.

    Raises:
        StudyExistsError: Another driver works on the study; the message says which.
        StorageError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise StorageError(
            f"storage {path.parent}: cannot be written ({error.strerror or error}); name another "
            "folder with `storage`"
        ) from error
    with file:
        if not _try_to_lock(file, patience_s):
            file.seek(0)
            raise StudyExistsError(
                f"study {name!r}: {file.read().strip() or 'another process'} is working "
                "on it; wait for it to end, or give this study another name"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def _try_to_lock(file: IO[str], patience_s: float) -> bool:
    end, pause = time.monotonic() + patience_s, 0.01
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
        else:
            return True
