"""One driver a study: a lock file that the operating system releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from distprune.errors import StorageError, StudyExistsError


@contextmanager
def hold_study(path: Path, name: str) -> Iterator[None]:
    """Hold the study's lock inside the block.

    Args:
        path: The lock file.
        name: Name of the study, for messages.

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
        if not _try_to_lock(file):
            file.seek(0)
            raise StudyExistsError(
                f"study {name!r}: {file.read().strip() or 'another process'} is working "
                "on it; wait for it to end, or give this study another name"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def _try_to_lock(file: IO[str]) -> bool:
    """Lock the file; try again for a moment, since who asks if a study runs holds it for one."""
    for pause_s in (0.01, 0.1, 0.5, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause_s)
        else:
            return True
    return False
