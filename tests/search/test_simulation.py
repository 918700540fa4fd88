"""A study that is played through, against what can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.search.simulation import (
    Course,
    PlannedLevel,
    PlannedStudy,
    PricedStage,
    Room,
    simulate,
)

DENSE = PricedStage("dense", "dense", "dense", 10.0, slots=2)
REPORT = PricedStage("dense on report", "evaluate", "evaluate", 1.0)
ONE, TWO = Room(slots=1, concurrent=1), Room(slots=2, concurrent=2)


def stage(key: str, seconds: float, name: str = "retrain") -> PricedStage:
    return PricedStage(key, name, name, seconds)


def level(
    *stages: PricedStage, milestones: tuple[int, ...] = (1,), levels_left: int = 1
) -> PlannedLevel:
    """Return a level whose model takes no time on the report split."""
    report = stage(f"{stages[-1].key} on report", 0.0, "evaluate")
    return PlannedLevel(stages, report, milestones, levels_left)


def play(
    *trials: tuple[PlannedLevel, ...],
    room: Room = TWO,
    stopped: Sequence[tuple[int, int]] = (),
    qualities: Sequence[float] | None = None,
) -> Course:
    """Play a study of a dense model and trials; `stopped` are (trial, milestone)."""
    return simulate(
        PlannedStudy((DENSE,), trials, tuple(qualities or [0.0] * len(trials)), REPORT),
        room,
        lambda number, milestone: (number, milestone) not in stopped,
    )


def list_keys(stages: Sequence[PricedStage]) -> list[str]:
    return [each.key for each in stages]


def test_stages_of_one_trial_follow_each_other() -> None:
    course = play((level(stage("a", 1), stage("b", 4)), level(stage("c", 2))))
    assert course.shared_s == 10
    assert course.seconds == 10 + 1 + 4 + 2 + 1
    assert list_keys(course.computed)[:4] == ["dense", "a", "b", "c"]


def test_stage_that_two_trials_need_is_computed_once() -> None:
    """The score ends at 12; then both retrain side by side, 4 and 6 seconds."""
    course = play(
        (level(stage("score", 2), stage("a", 4)),), (level(stage("score", 2), stage("b", 6)),)
    )
    assert course.seconds == 10 + 2 + 6 + 1
    assert list_keys(course.needed) == ["score", "score", "a", "b"]
    assert sorted(list_keys(course.computed)) == sorted(
        ["dense", "score", "a", "b", "dense on report", "b on report"]
    )


def test_trial_of_which_all_is_computed_takes_no_time() -> None:
    course = play((level(stage("a", 4)),), (level(stage("a", 4)),), room=ONE)
    assert course.seconds == 10 + 4 + 1
    assert course.reached == {1: 2}


def test_stopped_trial_makes_room_for_the_next() -> None:
    """One at a time: 3 + 5 seconds, then the second trial's 2, then it is stopped."""
    trials = [
        (level(stage(f"{name}1", first)), level(stage(f"{name}2", 5), milestones=(2,)))
        for name, first in (("a", 3), ("b", 2))
    ]
    course = play(*trials, room=ONE, stopped=[(1, 1)])
    assert course.seconds == 10 + 3 + 5 + 2 + 1
    assert course.reached == {1: 2, 2: 1}
    assert "b2" not in list_keys(course.computed)


def test_trial_stopped_between_milestones_of_one_level_reaches_no_more() -> None:
    course = play((level(stage("a", 3), milestones=(1, 2, 3)),), stopped=[(0, 2)])
    assert course.reached == {1: 1, 2: 1}


def test_no_more_trials_run_than_may() -> None:
    trials = [(level(stage(name, 4)),) for name in "abc"]
    assert play(*trials, room=Room(slots=3, concurrent=1)).seconds == 10 + 12 + 1
    assert play(*trials, room=Room(slots=3, concurrent=3)).seconds == 10 + 4 + 1


def test_stage_of_the_trial_nearest_to_its_milestone_starts_first() -> None:
    """One slot: while `a` runs, `far` is asked for before `near`."""
    course = play(
        (level(stage("a", 1)),),
        (level(stage("far", 1), levels_left=3),),
        (level(stage("near", 1)),),
        room=Room(slots=1, concurrent=3),
    )
    assert list_keys(course.computed)[1:4] == ["a", "near", "far"]


def test_stage_is_hurried_by_a_nearer_trial_that_needs_it_too() -> None:
    course = play(
        (level(stage("a", 1)),),
        (level(stage("x", 1), levels_left=3),),
        (level(stage("y", 1), levels_left=2),),
        (level(stage("x", 1)),),
        room=Room(slots=1, concurrent=4),
    )
    assert list_keys(course.computed)[1:4] == ["a", "x", "y"]


def test_what_waits_takes_a_free_slot_before_its_trial_has_heard() -> None:
    course = play(
        (level(stage("a", 1), stage("a2", 1)),),
        (level(stage("b", 1), levels_left=3),),
        room=Room(slots=1, concurrent=2),
    )
    assert list_keys(course.computed)[1:4] == ["a", "b", "a2"]


def test_large_stage_waits_until_its_cores_are_free() -> None:
    large = PricedStage("large", "probe", "probe", 5.0, slots=2)
    course = play((level(stage("a", 3)),), (level(large),))
    assert course.seconds == 10 + 3 + 5 + 1


def test_processes_take_time_to_start() -> None:
    """First the dense model's worker, then the trials', then the worker of `b`."""
    room = Room(slots=2, concurrent=2, worker_start_s=7.0)
    course = play((level(stage("a", 4)),), (level(stage("b", 4)),), room=room)
    assert course.shared_s == 17
    assert course.seconds == 17 + 7 + (7 + 4) + 1
    room = Room(slots=2, concurrent=2, worker_start_s=7.0, keeps_workers=False)
    course = play((level(stage("a", 4), stage("b", 4)),), room=room)
    assert course.seconds == 17 + 7 + 11 + 11 + 8


@pytest.mark.parametrize(("qualities", "best"), [((0.1, 0.9), "b"), ((0.9, 0.1), "a")])
def test_best_model_of_each_milestone_is_evaluated_at_the_end(
    qualities: tuple[float, float], best: str
) -> None:
    """At the second milestone there is `a` alone."""
    course = play(
        (level(stage("a", 1)), level(stage("a2", 1), milestones=(2,))),
        (level(stage("b", 1)),),
        stopped=[(1, 1)],
        qualities=qualities,
    )
    reports = [key for key in list_keys(course.computed) if key.endswith("report")]
    assert sorted(reports) == sorted(["dense on report", f"{best} on report", "a2 on report"])


KEYS = st.integers(0, 6)
TRIALS = st.lists(st.lists(KEYS, min_size=1, max_size=4), max_size=6)


@given(TRIALS, st.integers(1, 4), st.integers(1, 4))
def test_work_is_kept_and_done_once(trials: list[list[int]], slots: int, concurrent: int) -> None:
    """Equal keys take equally long; no cluster is faster than its slots, one slot never idles."""
    planned = [tuple(level(stage(str(key), key + 1.0)) for key in keys) for keys in trials]
    course = play(*planned, room=Room(slots, concurrent))
    keys = list_keys(course.computed)
    assert len(keys) == len(set(keys))
    assert set(list_keys(course.needed)) <= set(keys)
    assert len(course.needed) == sum(map(len, trials))
    work = sum(each.seconds for each in course.computed)
    assert course.seconds * slots >= work - 1e-9
    assert course.seconds <= work + 1e-9
    if slots == 1:
        assert course.seconds == pytest.approx(work)
