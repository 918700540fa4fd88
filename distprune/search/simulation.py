"""A study played through without computing anything: which stage runs when, and who goes on.

Pure: the same stages, prices and qualities come to the same end. Stages wait for their turn in the
real queue, each is computed once, and a trial that has ended makes room for the next one.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from distprune.search.stage_queue import StageQueue, Urgency

SHARED = Urgency(0, 0)
"""Urgency of what the driver asks for: nothing else is under way then."""


@dataclass(frozen=True)
class PricedStage:
    """A stage and what it costs.

    Attributes:
        key: Its key in the store; equal keys are one stage.
        stage: Its name.
        kind: What its price was made of.
        seconds: Wall time.
        slots: Ordinary stages that it takes the cores of.
        num_bytes: Size of what it stores.
    """

    key: str
    stage: str
    kind: str
    seconds: float
    slots: int = 1
    num_bytes: float = 0.0


@dataclass(frozen=True)
class PlannedLevel:
    """One level of a trial.

    Attributes:
        stages: What it needs, one after the other.
        report: The evaluation of its model on the report split, for the end of the study.
        milestones: Numbers of the milestones that it is the first to reach, from 1, in order.
        levels_left: Levels that the trial has to go to its next milestone, this one included.
    """

    stages: tuple[PricedStage, ...]
    report: PricedStage
    milestones: tuple[int, ...]
    levels_left: int


@dataclass(frozen=True)
class PlannedStudy:
    """All that a study would compute if no trial were stopped.

    Attributes:
        shared: What the driver computes before the trials, one after the other.
        trials: The levels of each trial, in the order in which trials begin.
        qualities: How good each trial is; the best that reaches a milestone is evaluated at the
            end. Higher is better.
        report: The evaluation of the dense model on the report split.
    """

    shared: tuple[PricedStage, ...]
    trials: tuple[tuple[PlannedLevel, ...], ...]
    qualities: tuple[float, ...]
    report: PricedStage


@dataclass(frozen=True)
class Room:
    """What the cluster offers a study.

    Attributes:
        slots: Stages that run at a time.
        concurrent: Trials that run at a time.
        worker_start_s: Seconds that the first stage of each worker process takes longer; the
            processes of trials, which start together and are used again, take as long.
        keeps_workers: Whether a process runs more than one stage.
    """

    slots: int
    concurrent: int
    worker_start_s: float = 0.0
    keeps_workers: bool = True


GoesOn = Callable[[int, int], bool]
"""Whether the trial of a number goes on after the milestone of a number; asked once, in order."""


@dataclass(frozen=True)
class Course:
    """How a study went.

    Attributes:
        seconds: Wall time from its first stage to its last.
        shared_s: Of it, before the first trial.
        computed: The stages, each one once.
        needed: The stages of each trial, as many times as a trial needed them.
        reached: How many trials reached each milestone.
    """

    seconds: float
    shared_s: float
    computed: tuple[PricedStage, ...]
    needed: tuple[PricedStage, ...]
    reached: Mapping[int, int]


def simulate(study: PlannedStudy, room: Room, goes_on: GoesOn) -> Course:
    """Play a study through.

    Args:
        study: Its stages.
        room: Where they run.
        goes_on: Stops trials at milestones.
    """
    cluster = _Cluster(room)
    cluster.run([_ask_for(study.shared)], 1)
    shared_s = cluster.clock
    cluster.clock += room.worker_start_s if study.trials else 0.0
    needed: list[PricedStage] = []
    arrivals: list[tuple[int, int, PricedStage]] = []

    def walk(number: int) -> Iterator[tuple[PricedStage, Urgency]]:
        for level in study.trials[number]:
            for stage in level.stages:
                needed.append(stage)
                yield stage, Urgency.of(stage.stage, level.levels_left)
            for milestone in level.milestones:
                arrivals.append((milestone, number, level.report))
                if not goes_on(number, milestone):
                    return

    cluster.run(map(walk, range(len(study.trials))), room.concurrent)
    best = {
        milestone: report
        for milestone, number, report in sorted(arrivals, key=lambda a: study.qualities[a[1]])
    }
    cluster.run([_ask_for([report]) for report in (study.report, *best.values())], len(best) + 1)
    return Course(
        seconds=cluster.clock,
        shared_s=shared_s,
        computed=tuple(cluster.computed),
        needed=tuple(needed),
        reached=Counter(milestone for milestone, *_ in arrivals),
    )


_Walk = Iterator[tuple[PricedStage, Urgency]]
"""Asks for one stage after the other, each once the one before is there."""


def _ask_for(stages: Iterable[PricedStage]) -> _Walk:
    return ((stage, SHARED) for stage in stages)


class _Cluster:
    """A clock, and the stages that run and wait; the order of events is that of the broker."""

    def __init__(self, room: Room) -> None:
        self.clock = 0.0
        self.computed: list[PricedStage] = []
        self._room = room
        self._queue = StageQueue()
        self._stages: dict[str, PricedStage] = {}
        self._waiting: dict[str, list[_Walk]] = {}
        self._running: list[tuple[float, int, str]] = []
        self._num_workers = 0

    def run(self, walks: Iterable[_Walk], concurrent: int) -> None:
        """Let walks go to their ends, so many at a time."""
        ahead = iter(walks)
        for walk in (next(ahead, None) for _ in range(concurrent)):
            self._go_on(walk, ahead)
        self._start()
        while self._running:
            self.clock, _, key = heapq.heappop(self._running)
            self._queue.finish(key)
            # What waits already is faster than who has to hear of the end first.
            self._start()
            for walk in self._waiting.pop(key):
                self._go_on(walk, ahead)
            self._start()

    def _go_on(self, walk: _Walk | None, ahead: Iterator[_Walk]) -> None:
        """Let a walk ask until it has to wait; where it ends, the next one begins."""
        while walk is not None:
            for stage, urgency in walk:
                if self._must_wait(walk, stage, urgency):
                    return
            walk = next(ahead, None)

    def _must_wait(self, walk: _Walk, stage: PricedStage, urgency: Urgency) -> bool:
        if stage.key in self._waiting:
            self._waiting[stage.key].append(walk)
            self._queue.hurry(stage.key, urgency)
            return True
        if stage.key in self._stages:
            return False
        self._stages[stage.key] = stage
        self._waiting[stage.key] = [walk]
        self._queue.add(stage.key, stage.slots, urgency)
        return True

    def _start(self) -> None:
        for key in self._queue.start(self._room.slots):
            stage = self._stages[key]
            self.computed.append(stage)
            end = self.clock + stage.seconds
            if len(self._running) >= self._num_workers or not self._room.keeps_workers:
                self._num_workers += 1
                end += self._room.worker_start_s
            heapq.heappush(self._running, (end, len(self.computed), key))
