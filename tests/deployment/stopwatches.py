"""Stopwatches without time: what an action takes is known beforehand."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode

from distprune.deployment.latency_measurement import Action


class FakeClock:
    """A clock that only actions move on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Look at the clock."""
        return self.now

    def take(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class OperationStopwatch:
    """Says that an action takes as long as it has floating point operations.

    Args:
        slowness: Multiplies the time of the call with this number, from 0.
    """

    def __init__(self, slowness: Callable[[int], float] = lambda call: 1.0) -> None:
        self._slowness = slowness
        self.num_calls = 0

    def time(self, action: Action) -> Callable[[], float]:
        """Run an action and count."""
        with FlopCounterMode(display=False) as counter:
            action()
        seconds = counter.get_total_flops() * self._slowness(self.num_calls)
        self.num_calls += 1
        return lambda: seconds

    def synchronise(self) -> None:
        """Do nothing."""
