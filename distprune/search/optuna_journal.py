"""Optuna's journal: written for other programs, such as a dashboard, and never read back here.

The study's history is the truth, and Optuna's study is made from it whenever a search starts. So
the file is begun anew each time, and nobody has to lock it or to wait until it is on disk.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from distprune.core.atomic_file import write_file
from distprune.errors import StorageError


class JournalFile(BaseJournalBackend):
    """Hands operations back to the one storage that wrote them, and writes them to a file.

    Args:
        path: The file; replaced by the first `flush`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unread: list[dict[str, Any]] = []
        self._unwritten: list[str] = []
        self._is_begun = False

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Take operations; they are in the file after the next `flush`."""
        for log in logs:
            line = json.dumps(log, separators=(",", ":"))
            self._unwritten.append(line + "\n")
            self._unread.append(json.loads(line))  # as who reads the file gets them

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Return the operations since the last call: each is asked for once, in order."""
        logs, self._unread = self._unread, []
        return logs

    def flush(self) -> None:
        """Write what was taken since the last call.

        Raises:
            StorageError: It cannot be written.
        """
        text, self._unwritten = "".join(self._unwritten), []
        if not self._is_begun:
            write_file(self._path, text)
            self._is_begun = True
        elif text:
            self._append(text)

    def _append(self, text: str) -> None:
        try:
            with self._path.open("a") as file:
                file.write(text)
        except OSError as error:
            raise StorageError(
                f"Optuna's journal {self._path}: cannot be written ({error.strerror or error}); "
                "free space and start the search again, it goes on from what is stored"
            ) from error
