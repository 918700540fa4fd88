"""Milestones: a study compares its trials at equal sparsity, whatever their schedules are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from statistics import fmean

from distprune.core.retention import Reference
from distprune.core.selection import ROUNDING
from distprune.trial.results import LevelResult, MilestoneReport


class Objective(StrEnum):
    """What a study maximises: the mean retention so far, or the retention reached last."""

    CURVE = "curve"
    TARGET = "target"


def report_milestones(
    levels: Iterable[LevelResult],
    milestones: tuple[float, ...],
    reference: Reference,
    objective: Objective,
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
    pending: list[LevelResult] = []
    for result in levels:
        pending.append(result)
        retention = reference.retention(result.metric)
        while len(retentions) < len(milestones) and _reaches(result, milestones[len(retentions)]):
            retentions.append(retention)
            yield MilestoneReport(
                milestone=len(retentions),
                sparsity=milestones[len(retentions) - 1],
                retention=retention,
                objective=fmean(retentions) if objective is Objective.CURVE else retention,
                metric=result.metric,
                level=result.level,
                new_levels=tuple(pending),
            )
            pending = []


def _reaches(result: LevelResult, milestone: float) -> bool:
    return result.sparsity >= milestone - ROUNDING
