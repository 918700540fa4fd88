"""Milestones: a study compares its trials at equal sparsity, whatever their schedules are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from statistics import fmean

from distprune.core.retention import Reference
from distprune.core.selection import ROUNDING
from distprune.trial.latency_objective import LatencyObjective
from distprune.trial.results import LevelResult, MilestoneReport


class Objective(StrEnum):
    """What a study maximises: the mean retention so far, or the retention reached last."""

    CURVE = "curve"
    TARGET = "target"


def report_milestones(
    levels: Iterable[LevelResult],
    milestones: tuple[float, ...],
    reference: Reference,
    objective: Objective | LatencyObjective,
) -> Iterator[MilestoneReport]:
    """Report once, in order, for every milestone that a level newly reaches.

    The answer at a milestone is the first model whose sparsity is at least the milestone, so a
    one-shot schedule reports its only model at all of them.

    Args:
        levels: Results of the levels, sparsity increasing.
        milestones: Sparsities of the study's grid, increasing.
        reference: Dense metric and floor of the study.
        objective: What each report's objective is made of.

    Raises:
        DivergedTrialError: A metric is not finite; the milestone is not reported.
    """
    retentions: list[float] = []
    ratings: list[float] = []
    pending: list[LevelResult] = []
    for result in levels:
        pending.append(result)
        retention = reference.retention(result.metric)
        if isinstance(objective, LatencyObjective) and result.level > 0:
            ratings.append(objective.rate(result.mask, retention))
        while len(retentions) < len(milestones) and _reaches(result, milestones[len(retentions)]):
            retentions.append(retention)
            yield MilestoneReport(
                milestone=len(retentions),
                sparsity=milestones[len(retentions) - 1],
                retention=retention,
                objective=_summarise(objective, retentions, ratings),
                metric=result.metric,
                level=result.level,
                new_levels=tuple(pending),
            )
            pending = []


def count_levels_left(
    sparsities: tuple[float, ...], milestones: tuple[float, ...], level: int
) -> int:
    """Count the levels that a trial has to go from `level` to its next milestone.

    Args:
        sparsities: Sparsity of each level after level 0, increasing; the last is the target.
        milestones: Sparsities of the study's grid, increasing; the last is the target.
        level: The level that the trial has finished last.
    """
    reached = sparsities[level - 1] if level else 0.0
    ahead = [milestone for milestone in milestones if milestone - ROUNDING > reached]
    if not ahead:
        return 0
    below = sum(1 for sparsity in sparsities[level:] if sparsity < ahead[0] - ROUNDING)
    return below + 1


def _summarise(
    objective: Objective | LatencyObjective, retentions: list[float], ratings: list[float]
) -> float:
    """Return the objective after a milestone.

    Args:
        objective: What it is made of.
        retentions: By milestone, the newest last.
        ratings: By level, those between milestones too; empty unless there is a latency to meet.
    """
    if isinstance(objective, LatencyObjective):
        return max(ratings)
    return fmean(retentions) if objective is Objective.CURVE else retentions[-1]


def _reaches(result: LevelResult, milestone: float) -> bool:
    return result.sparsity >= milestone - ROUNDING
