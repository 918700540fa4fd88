"""Probes: how often something is called in a process, and how long that takes, by progress.

Only sums are kept, so that measuring many trials takes no more memory than measuring few.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NUM_TENTHS = 10


@dataclass
class Sum:
    """Calls of one thing in a tenth of a study: how many, and their wall time in seconds."""

    calls: int = 0
    seconds: float = 0.0


@dataclass
class Probes:
    """What a process has measured of itself.

    Attributes:
        num_trials: Trials of the study.
        num_ended: Trials that have ended so far.
        sums: By name of what is called, one sum for each tenth of the trials.
    """

    num_trials: int
    num_ended: int = 0
    sums: dict[str, list[Sum]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, seconds: float) -> None:
        """Add a call; it belongs to the tenth of the trials that has ended so far."""
        tenth = min(NUM_TENTHS - 1, self.num_ended * NUM_TENTHS // self.num_trials)
        with self._lock:
            sums = self.sums.setdefault(name, [Sum() for _ in range(NUM_TENTHS)])
            sums[tenth].calls += 1
            sums[tenth].seconds += seconds

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Measure each call of a function or method from now on.

        Raises:
            AttributeError: There is no such function any more.
        """
        original: Callable[..., Any] = getattr(owner, attribute)

        @functools.wraps(original)
        def measured(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.add(name, time.perf_counter() - started)

        setattr(owner, attribute, measured)

    def count_ends(self, owner: Any, attribute: str) -> None:
        """Take each call of a method as the end of a trial."""
        original: Callable[..., Any] = getattr(owner, attribute)

        @functools.wraps(original)
        def counted(*args: Any, **kwargs: Any) -> Any:
            done = original(*args, **kwargs)
            self.num_ended += 1
            return done

        setattr(owner, attribute, counted)

    def to_json(self) -> dict[str, list[dict[str, float]]]:
        """Return all sums, by name and tenth."""
        return {
            name: [{"calls": one.calls, "seconds": round(one.seconds, 4)} for one in sums]
            for name, sums in sorted(self.sums.items())
        }
