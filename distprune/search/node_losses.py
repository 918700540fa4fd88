"""Lost nodes: a process that died about when its node was lost did not die of what it did."""

from __future__ import annotations

from dataclasses import dataclass, field

WINDOW_S = 60.0
"""Seconds between the loss of a node and the deaths that it explains: processes of a node that is
shut down die before it is gone, and one that is cut off is noticed late."""


@dataclass
class NodeLosses:
    """When nodes of a cluster were lost, as far as was looked. Times are of one monotonic clock."""

    _living: frozenset[str] = frozenset()
    _times: list[float] = field(default_factory=list)

    def look(self, living: frozenset[str], now: float) -> None:
        """Note which nodes live now."""
        if self._living - living:
            self._times.append(now)
        self._living = living

    def explains(self, when: float) -> bool:
        """Say whether a node was lost about when a process died."""
        return any(abs(when - lost) <= WINDOW_S for lost in self._times)
