"""Milestones: each is reported once, in order, by the first model that reaches it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.retention import Reference
from distprune.core.schedule import ScheduleShape, default_milestones, level_sparsities
from distprune.errors import DivergedTrialError
from distprune.trial.reporter import Objective, count_levels_left, report_milestones
from distprune.trial.results import LevelResult, MilestoneReport
from tests.trial.results import make_results

REFERENCE = Reference(dense=0.9, floor=0.5)
MILESTONES = (0.1, 0.2, 0.3, 0.4, 0.5)


def report(
    levels: list[LevelResult],
    milestones: tuple[float, ...] = MILESTONES,
    reference: Reference = REFERENCE,
    objective: Objective = Objective.CURVE,
) -> list[MilestoneReport]:
    return list(report_milestones(iter(levels), milestones, reference, objective))


def test_a_level_for_each_milestone() -> None:
    levels = make_results((0.0, *MILESTONES), (0.9, 0.9, 0.8, 0.7, 0.6, 0.5))
    reports = report(levels)
    assert [r.milestone for r in reports] == [1, 2, 3, 4, 5]
    assert [r.sparsity for r in reports] == list(MILESTONES)
    assert [r.level for r in reports] == [1, 2, 3, 4, 5]
    assert [r.metric for r in reports] == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert [r.retention for r in reports] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_one_shot_answers_all_milestones_with_its_only_model() -> None:
    reports = report(make_results((0.0, 0.5), (0.9, 0.7)))
    assert [r.milestone for r in reports] == [1, 2, 3, 4, 5]
    assert {(r.level, r.metric) for r in reports} == {(1, 0.7)}
    assert [r.objective for r in reports] == pytest.approx([0.5] * 5)


def test_new_levels_name_each_level_once() -> None:
    levels = make_results((0.0, 0.05, 0.12, 0.33, 0.5), (0.9, 0.9, 0.8, 0.7, 0.6))
    reports = report(levels)
    assert [r.level for r in reports] == [2, 3, 3, 4, 4]
    assert [[new.level for new in r.new_levels] for r in reports] == [[0, 1, 2], [3], [], [4], []]


def test_the_first_model_beyond_a_milestone_answers_not_a_better_one_later() -> None:
    reports = report(make_results((0.0, 0.25, 0.3), (0.9, 0.6, 0.8)), milestones=(0.2,))
    assert [(r.level, r.metric) for r in reports] == [(1, 0.6)]


def test_levels_below_the_next_milestone_are_not_reported() -> None:
    assert report(make_results((0.0, 0.05, 0.09999), (0.9, 0.9, 0.9))) == []


@pytest.mark.parametrize("sparsity", [0.1 * 3, 0.3, 0.3 - 1e-12, 0.29999999999999993])
def test_rounding_of_a_sparsity_does_not_miss_its_milestone(sparsity: float) -> None:
    for milestone in (0.3, 0.1 * 3):
        reports = report(make_results((0.0, sparsity), (0.9, 0.8)), milestones=(milestone,))
        assert len(reports) == 1


@given(
    shape=st.sampled_from(ScheduleShape),
    levels=st.integers(1, 30),
    target=st.floats(0.05, 0.95),
    num_milestones=st.integers(1, 10),
)
def test_every_schedule_reports_every_milestone_once_and_in_order(
    shape: ScheduleShape, levels: int, target: float, num_milestones: int
) -> None:
    sparsities = (0.0, *level_sparsities(shape, levels, target))
    milestones = default_milestones(target, num_milestones)
    reports = report(make_results(sparsities, [0.9] * len(sparsities)), milestones)
    assert [r.milestone for r in reports] == list(range(1, num_milestones + 1))
    new = [level.level for r in reports for level in r.new_levels]
    assert new == list(range(len(sparsities)))
    for r in reports:
        assert sparsities[r.level] >= r.sparsity - 1e-9
        assert r.level == 0 or sparsities[r.level - 1] < r.sparsity - 1e-9


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_never_reported(metric: float) -> None:
    levels = make_results((0.0, 0.1, 0.2), (0.9, 0.8, metric))
    reports = report_milestones(levels, (0.1, 0.2), REFERENCE, Objective.CURVE)
    assert next(reports).milestone == 1
    with pytest.raises(DivergedTrialError, match="not finite"):
        next(reports)


def test_a_diverged_level_between_milestones_ends_the_trial_too() -> None:
    with pytest.raises(DivergedTrialError):
        report(make_results((0.0, 0.05), (0.9, math.nan)))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [(Objective.CURVE, [1.0, 0.875, 0.75]), (Objective.TARGET, [1.0, 0.75, 0.5])],
)
def test_objective(objective: Objective, expected: list[float]) -> None:
    levels = make_results((0.0, 0.1, 0.2, 0.3), (0.9, 0.9, 0.8, 0.7))
    reports = report(levels, milestones=(0.1, 0.2, 0.3), objective=objective)
    assert [r.objective for r in reports] == pytest.approx(expected)
    assert [r.retention for r in reports] == pytest.approx([1.0, 0.75, 0.5])


def test_lower_is_better_metrics_have_the_same_objective() -> None:
    loss = Reference(dense=0.2, floor=1.0, higher_is_better=False)
    reports = report(make_results((0.0, 0.1), (0.2, 0.4)), milestones=(0.1,), reference=loss)
    assert reports[0].objective == pytest.approx(0.75)
    assert reports[0].metric == 0.4


def test_levels_are_taken_one_at_a_time() -> None:
    taken = []

    def levels():  # type: ignore[no-untyped-def]
        for result in make_results((0.0, 0.1, 0.2), (0.9, 0.8, 0.7)):
            taken.append(result.level)
            yield result

    reports = report_milestones(levels(), (0.1, 0.2), REFERENCE, Objective.CURVE)
    next(reports)
    assert taken == [0, 1]


@pytest.mark.parametrize(
    ("sparsities", "milestones", "level", "count"),
    [
        ((0.25, 0.5), (0.25, 0.5), 0, 1),
        ((0.25, 0.5), (0.25, 0.5), 1, 1),
        ((0.25, 0.5), (0.25, 0.5), 2, 0),
        ((0.1, 0.2, 0.3, 0.4, 0.5), (0.25, 0.5), 0, 3),
        ((0.1, 0.2, 0.3, 0.4, 0.5), (0.25, 0.5), 2, 1),
        ((0.1, 0.2, 0.3, 0.4, 0.5), (0.25, 0.5), 3, 2),
        ((0.5,), (0.1, 0.2, 0.5), 0, 1),
    ],
)
def test_levels_left_to_the_next_milestone(
    sparsities: tuple[float, ...], milestones: tuple[float, ...], level: int, count: int
) -> None:
    assert count_levels_left(sparsities, milestones, level) == count
