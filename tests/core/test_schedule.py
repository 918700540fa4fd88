"""Schedules rise to exactly their target; milestones are equal steps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.schedule import ScheduleShape, default_milestones, level_sparsities

targets = st.floats(0.01, 0.99)
counts = st.integers(1, 40)


@given(target=targets, num_levels=counts)
@pytest.mark.parametrize("shape", ScheduleShape)
def test_schedules_rise_to_exactly_the_target(
    shape: ScheduleShape, target: float, num_levels: int
) -> None:
    levels = level_sparsities(shape, num_levels, target)
    assert len(levels) == (1 if shape is ScheduleShape.ONE_SHOT else num_levels)
    assert levels[-1] == target
    assert levels[0] > 0.0
    assert all(first < second for first, second in pairwise(levels))


@given(target=targets, num_levels=counts)
def test_geometric_removes_equal_shares_of_what_is_left(target: float, num_levels: int) -> None:
    levels = (0.0, *level_sparsities(ScheduleShape.GEOMETRIC, num_levels, target))
    shares = [(1 - after) / (1 - before) for before, after in pairwise(levels)]
    assert shares == pytest.approx([(1 - target) ** (1 / num_levels)] * num_levels)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (ScheduleShape.ONE_SHOT, (0.75,)),
        (ScheduleShape.LINEAR, (0.375, 0.75)),
        (ScheduleShape.GEOMETRIC, (0.5, 0.75)),
        (ScheduleShape.CUBIC, (0.75 * 7 / 8, 0.75)),
    ],
)
def test_two_levels_by_hand(shape: ScheduleShape, expected: tuple[float, ...]) -> None:
    assert level_sparsities(shape, 2, 0.75) == pytest.approx(expected)


@given(target=targets, num_levels=st.integers(3, 20))
def test_cubic_removes_most_at_first(target: float, num_levels: int) -> None:
    levels = (0.0, *level_sparsities(ScheduleShape.CUBIC, num_levels, target))
    steps = [after - before for before, after in pairwise(levels)]
    assert all(first > second for first, second in pairwise(steps))


@given(target=targets, num_milestones=st.integers(1, 20))
def test_milestones_are_equal_steps(target: float, num_milestones: int) -> None:
    milestones = default_milestones(target, num_milestones)
    expected = [target * (step + 1) / num_milestones for step in range(num_milestones)]
    assert milestones == pytest.approx(expected)
    assert milestones[-1] == target
    assert all(first < second for first, second in pairwise(milestones))


def test_milestones_are_readable() -> None:
    assert default_milestones(0.6, 6) == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
