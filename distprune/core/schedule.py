"""Schedules: the sparsity of each level on the way to the target; milestones to compare at."""

from __future__ import annotations

from enum import StrEnum


class ScheduleShape(StrEnum):
    """How sparsity rises over the levels.

    `linear` removes equal shares of the start, `geometric` equal shares of what is left (Frankle &
    Carbin 2019), `cubic` much at first and little at the end (Zhu & Gupta 2017).
    """

    ONE_SHOT = "one_shot"
    LINEAR = "linear"
    GEOMETRIC = "geometric"
    CUBIC = "cubic"


def level_sparsities(
    shape: ScheduleShape, num_levels: int, target_sparsity: float
) -> tuple[float, ...]:
    """Return the sparsity of each level after level 0, increasing; the last is the target.

    Args:
        shape: How sparsity rises; `one_shot` has one level, whatever `num_levels` says.
        num_levels: Levels of score, prune and retrain, >= 1.
        target_sparsity: In (0, 1).
    """
    if shape is ScheduleShape.ONE_SHOT or num_levels == 1:
        return (target_sparsity,)
    inner = tuple(
        _sparsity_at(shape, level / num_levels, target_sparsity) for level in range(1, num_levels)
    )
    return (*inner, target_sparsity)


def _sparsity_at(shape: ScheduleShape, progress: float, target_sparsity: float) -> float:
    if shape is ScheduleShape.LINEAR:
        return float(target_sparsity * progress)
    if shape is ScheduleShape.GEOMETRIC:
        return float(1.0 - (1.0 - target_sparsity) ** progress)
    return float(target_sparsity * (1.0 - (1.0 - progress) ** 3))


def default_milestones(target_sparsity: float, num_milestones: int) -> tuple[float, ...]:
    """Return `num_milestones` equal steps up to the target sparsity."""
    inner = tuple(
        round(target_sparsity * step / num_milestones, 10) for step in range(1, num_milestones)
    )
    return (*inner, target_sparsity)
