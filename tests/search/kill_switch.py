"""A process that dies between two writes to disk: the durable writes of a study, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from distprune.library.history import History
from distprune.search.optuna_journal import JournalFile


class KilledError(BaseException):
    """The process is dead; nothing may catch it."""


@dataclass
class KillSwitch:
    """Lets a number of writes through, then kills.

    Attributes:
        num_left: Writes before the end; None = no end.
        num_done: Writes so far.
    """

    num_left: int | None = None
    num_done: int = 0

    def guard(self, write: Callable[..., None]) -> Callable[..., None]:
        """Return `write`, or death in its place."""

        def guarded(*args: Any) -> None:
            if self.num_left is not None and self.num_done >= self.num_left:
                raise KilledError
            self.num_done += 1
            write(*args)

        return guarded


@contextmanager
def count_writes(num_left: int | None = None) -> Iterator[KillSwitch]:
    """Count every write to the history and to Optuna's journal; kill after `num_left`."""
    switch = KillSwitch(num_left)
    with (
        patch.object(History, "append", switch.guard(History.append)),
        patch.object(JournalFile, "flush", switch.guard(JournalFile.flush)),
        patch("os.fsync"),
    ):
        yield switch
