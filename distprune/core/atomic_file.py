"""Files that appear whole or not at all: written aside, synced, renamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from distprune.errors import StorageError


def write_file(path: Path, content: bytes | str) -> None:
    """Write `content` to `path`; a reader sees the old file or the whole new one.

    Raises:
        StorageError: The folder cannot be written or the disk is full; the old file stays.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); free space or name another "
            "folder; nothing was changed"
        ) from error
