"""The bill of a study that was played through: stages, hours, disk, and how far its trials came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from distprune.search.simulation import Course, PricedStage

HOUR_S = 3600.0


@dataclass(frozen=True)
class KindBill:
    """What stages of one kind come to; means over the rounds.

    Attributes:
        kind: The kind.
        num_computed: Stages that are computed.
        num_needed: Stages if every trial computed its own.
        stage_s: Wall time of one, in seconds.
        core_hours: Hours of all that are computed, times their cores.
        num_bytes: Size of what they store.
    """

    kind: str
    num_computed: float
    num_needed: float
    stage_s: float
    core_hours: float
    num_bytes: float


@dataclass(frozen=True)
class Bill:
    """What a study comes to, from its first stage to its last.

    Attributes:
        num_rounds: Times that the study was played through.
        wall_s: Wall time, median of the rounds.
        wall_range_s: Wall time, 10th and 90th percentile of the rounds.
        before_trials_s: Of the wall time, before the first trial.
        core_hours: Hours of all stages, times their cores.
        unshared_core_hours: The same if every trial computed its own stages.
        gpu_hours: Hours of all stages, times their GPUs.
        num_bytes: Size of what is stored.
        reached: How many trials reach each milestone, by its number; mean of the rounds.
        kinds: The bill by kind of stage, the dearest first.
    """

    num_rounds: int
    wall_s: float
    wall_range_s: tuple[float, float]
    before_trials_s: float
    core_hours: float
    unshared_core_hours: float
    gpu_hours: float
    num_bytes: float
    reached: Mapping[int, float]
    kinds: tuple[KindBill, ...]

    def begin_with(self, seconds: float, num_bytes: float) -> Bill:
        """Return the bill with what comes before the first stage: seconds, and bytes on disk."""
        low, high = self.wall_range_s
        return replace(
            self,
            wall_s=self.wall_s + seconds,
            wall_range_s=(low + seconds, high + seconds),
            before_trials_s=self.before_trials_s + seconds,
            num_bytes=self.num_bytes + num_bytes,
        )


def sum_up(courses: Sequence[Course], num_milestones: int, cpus: int, gpus: float) -> Bill:
    """Add up the rounds of a study.

    Args:
        courses: How each round went.
        num_milestones: Milestones of the study.
        cpus: Cores of an ordinary stage.
        gpus: GPUs of a stage.
    """
    low, median, high = np.quantile([course.seconds for course in courses], (0.1, 0.5, 0.9))
    rounds = len(courses)
    gpu_s = sum(stage.seconds for course in courses for stage in course.computed) * gpus
    kinds = tuple(_sum_up_kinds(courses, cpus))
    return Bill(
        num_rounds=rounds,
        wall_s=float(median),
        wall_range_s=(float(low), float(high)),
        before_trials_s=fmean(course.shared_s for course in courses),
        core_hours=sum(kind.core_hours for kind in kinds),
        unshared_core_hours=sum(_add_hours(c.needed) for c in courses) * cpus / rounds,
        gpu_hours=gpu_s / HOUR_S / rounds,
        num_bytes=sum(kind.num_bytes for kind in kinds),
        reached={
            number: fmean(course.reached.get(number, 0) for course in courses)
            for number in range(1, num_milestones + 1)
        },
        kinds=tuple(sorted(kinds, key=lambda kind: -kind.core_hours)),
    )


def _sum_up_kinds(courses: Sequence[Course], cpus: int) -> Iterable[KindBill]:
    rounds = len(courses)
    needed = Counter(stage.kind for course in courses for stage in course.needed)
    computed: dict[str, list[PricedStage]] = {}
    for course in courses:
        for stage in course.computed:
            computed.setdefault(stage.kind, []).append(stage)
    for kind, stages in computed.items():
        yield KindBill(
            kind=kind,
            num_computed=len(stages) / rounds,
            num_needed=needed[kind] / rounds,
            stage_s=fmean(stage.seconds for stage in stages),
            core_hours=_add_hours(stages) * cpus / rounds,
            num_bytes=sum(stage.num_bytes for stage in stages) / rounds,
        )


def _add_hours(stages: Iterable[PricedStage]) -> float:
    """Add up the hours of stages, times the slots that each takes."""
    return sum(stage.seconds * stage.slots for stage in stages) / HOUR_S
