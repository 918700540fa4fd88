"""What a trial's stages cost: computed at its request, or reused from what others had computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from distprune.store.entry import Entry


@dataclass(frozen=True)
class StageUse:
    """One stage that a trial needed.

    Attributes:
        stage: Name of the stage.
        key: Its entry in the store.
        is_computed: It was computed at this trial's request; False: it was stored already, or
            another trial had asked for it first.
        seconds: Wall time that it took whoever computed it.
        num_bytes: Size of its files.
        host: Name of the host that computed it; "" if it was not noted.
    """

    stage: str
    key: str
    is_computed: bool
    seconds: float
    num_bytes: int
    host: str = ""


class StageLog:
    """Notes every stage that a trial needs, each one once."""

    def __init__(self) -> None:
        self._noted: set[str] = set()
        self._uses: list[StageUse] = []

    def note(self, stage: str, entry: Entry, is_computed: bool) -> None:
        """Note that the trial uses an entry, unless it has used it before."""
        if entry.key not in self._noted:
            self._noted.add(entry.key)
            cost = (entry.seconds, entry.num_bytes)
            self._uses.append(StageUse(stage, entry.key, is_computed, *cost, entry.host))

    def take(self) -> tuple[StageUse, ...]:
        """Return what was noted since the last call."""
        uses, self._uses = tuple(self._uses), []
        return uses


@dataclass(frozen=True)
class Usage:
    """Sums over stages.

    Attributes:
        num_computed: Stages that were computed.
        num_reused: Stages that were there, or that somebody else computed meanwhile.
        seconds_computed: Wall time of the computed ones, added up.
        seconds_saved: Wall time that the reused ones would have taken, added up.
        bytes_written: Size of what was computed.
    """

    num_computed: int = 0
    num_reused: int = 0
    seconds_computed: float = 0.0
    seconds_saved: float = 0.0
    bytes_written: int = 0


def sum_up(uses: Iterable[StageUse]) -> Usage:
    """Add up uses of stages."""
    every = tuple(uses)
    computed = [use for use in every if use.is_computed]
    reused = [use for use in every if not use.is_computed]
    return Usage(
        num_computed=len(computed),
        num_reused=len(reused),
        seconds_computed=sum(use.seconds for use in computed),
        seconds_saved=sum(use.seconds for use in reused),
        bytes_written=sum(use.num_bytes for use in computed),
    )


def count_hosts(uses: Iterable[StageUse]) -> dict[str, int]:
    """Count the computed stages by the host that computed them, where it was noted."""
    counts = Counter(use.host for use in uses if use.is_computed and use.host)
    return dict(sorted(counts.items()))
