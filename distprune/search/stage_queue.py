"""The order in which ready stages start: most urgent first, all cores busy. Without Ray."""

from __future__ import annotations

from dataclasses import dataclass

STAGES_LEFT = {"evaluate": 0, "retrain": 1, "score": 2}
"""Stages of a level that come after a stage; the others come before all of these."""


@dataclass(frozen=True, order=True)
class Urgency:
    """How near a trial is to its next milestone; the lower, the sooner its stage starts.

    Attributes:
        levels_left: Levels that the trial has to go to its next milestone, this one included.
        stages_left: Stages of the level that come after this one.
    """

    levels_left: int
    stages_left: int

    @classmethod
    def of(cls, stage: str, levels_left: int) -> Urgency:
        """Return the urgency of a stage by its name."""
        return cls(levels_left, STAGES_LEFT.get(stage, len(STAGES_LEFT)))


@dataclass(frozen=True)
class _Waiting:
    slots: int
    urgency: Urgency
    order: int


class StageQueue:
    """Stages that wait for cores, and those that hold them.

    A slot is the cores and GPUs of one ordinary stage. A stage that needs more slots than there are
    starts alone. What is most urgent is never overtaken, so that a large stage gets its turn.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._running: dict[str, int] = {}
        self._num_added = 0

    def add(self, key: str, slots: int, urgency: Urgency) -> None:
        """Let a stage wait for so many slots."""
        self._num_added += 1
        self._waiting[key] = _Waiting(slots, urgency, self._num_added)

    def hurry(self, key: str, urgency: Urgency) -> None:
        """Let a waiting stage start sooner, because a trial waits for it that is nearer."""
        waiting = self._waiting.get(key)
        if waiting is not None and urgency < waiting.urgency:
            self._waiting[key] = _Waiting(waiting.slots, urgency, waiting.order)

    def start(self, capacity: int) -> list[str]:
        """Return the stages to start now, most urgent first, given `capacity` slots in all."""
        started = []
        while self._waiting:
            key = min(
                self._waiting, key=lambda k: (self._waiting[k].urgency, self._waiting[k].order)
            )
            used = sum(self._running.values())
            if used and used + self._waiting[key].slots > capacity:
                break
            self._running[key] = self._waiting.pop(key).slots
            started.append(key)
        return started

    def finish(self, key: str) -> None:
        """Give back the slots of a stage that has ended."""
        del self._running[key]
