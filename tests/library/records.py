"""Trials as the history knows them."""

from __future__ import annotations

from typing import Any

from distprune.library.history import (
    MilestoneReached,
    Outcome,
    TrialEnded,
    TrialRecord,
    TrialStarted,
)
from distprune.trial.results import LevelResult, MilestoneReport
from tests.trial.results import make_results


def make_start(number: int = 0, **parameters: Any) -> TrialStarted:
    return TrialStarted(
        number=number,
        time=100.0 + number,
        spec={
            "checkpoint": "tiny",
            "pruning": {"mixing": {"coefficient": 0.1 * number}, "rewinding": 0.5},
        },
        parameters=parameters or {"pruning.mixing.coefficient": 0.1 * number},
        proposal=number + 10,
    )


def make_report(milestone: int, levels: list[LevelResult], metric: float = 0.8) -> MilestoneReport:
    return MilestoneReport(
        milestone=milestone,
        sparsity=0.1 * milestone,
        retention=0.9,
        objective=0.95,
        metric=metric,
        level=levels[-1].level if levels else milestone,
        new_levels=tuple(levels),
    )


def reach(number: int, milestone: int, levels: list[LevelResult]) -> MilestoneReached:
    return MilestoneReached(number, 200.0 + milestone, make_report(milestone, levels))


def end(number: int, outcome: Outcome = Outcome.COMPLETED, message: str = "") -> TrialEnded:
    return TrialEnded(number, 300.0, outcome, message)


def make_trial(number: int, points: list[tuple[float, float]], **parameters: Any) -> TrialRecord:
    """Make a trial of (sparsity, metric) levels after a dense level with the best of metrics."""
    sparsities, metrics = zip((0.0, 1.0), *points, strict=True)
    record = TrialRecord(make_start(number, **parameters))
    for level in make_results(sparsities, metrics):
        record.reports[level.level] = reach(number, level.level, [level])
    return record
