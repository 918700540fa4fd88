"""One driver a study: a lock file that the operating system releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StudyExistsError(
                f"study {name!r}: {file.read().strip() or 'another process'} is working "
                "on it; wait for it to end, or give this study another name"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
