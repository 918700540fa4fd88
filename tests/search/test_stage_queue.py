"""The order of stages, checked on random arrivals and ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distprune.search.stage_queue import StageQueue, Urgency

CAPACITY = 4
SLOTS = st.integers(1, 6)
URGENCIES = st.builds(Urgency, st.integers(0, 3), st.integers(0, 3))


def test_evaluations_end_levels_and_so_come_first() -> None:
    stages = ["dense", "score", "retrain", "evaluate"]
    assert sorted(stages, key=lambda stage: Urgency.of(stage, 1)) == stages[::-1]
    assert Urgency.of("score", 1) < Urgency.of("evaluate", 2)


def test_most_urgent_starts_first_and_equals_in_turn() -> None:
    queue = StageQueue()
    for key, levels_left in (("a", 2), ("b", 1), ("c", 2), ("d", 1)):
        queue.add(key, 1, Urgency(levels_left, 0))
    assert queue.start(1) == ["b"]
    assert queue.start(1) == []
    queue.finish("b")
    assert queue.start(3) == ["d", "a", "c"]


def test_stage_is_hurried_but_never_delayed() -> None:
    queue = StageQueue()
    queue.add("a", 1, Urgency(2, 0))
    queue.add("b", 1, Urgency(3, 0))
    queue.hurry("b", Urgency(1, 0))
    queue.hurry("b", Urgency(9, 0))
    queue.hurry("gone", Urgency(0, 0))
    assert queue.start(1) == ["b"]


def test_large_stage_is_not_overtaken_for_ever() -> None:
    queue = StageQueue()
    queue.add("small", 1, Urgency(1, 0))
    assert queue.start(2) == ["small"]
    queue.add("large", 2, Urgency(1, 0))
    queue.add("later", 1, Urgency(2, 0))
    assert queue.start(2) == []
    queue.finish("small")
    assert queue.start(2) == ["large"]


@given(st.lists(st.tuples(SLOTS, URGENCIES), max_size=12), st.data())
def test_all_start_once_within_the_capacity(
    stages: list[tuple[int, Urgency]], data: st.DataObject
) -> None:
    queue = StageQueue()
    waiting = {str(index): stage for index, stage in enumerate(stages)}
    for key, (slots, urgency) in waiting.items():
        queue.add(key, slots, urgency)
    running: list[str] = []
    started: list[str] = []
    while len(started) < len(stages) or running:
        now = queue.start(CAPACITY)
        running += now
        started += now
        assert running, "nothing runs although stages wait"
        used = sum(waiting[key][0] for key in running)
        assert used <= CAPACITY or len(running) == 1
        left = [key for key in waiting if key not in started]
        if left:
            first = min(left, key=lambda key: (waiting[key][1], int(key)))
            assert used + waiting[first][0] > CAPACITY, "a core is idle although a stage fits"
            assert all(waiting[key][1] <= waiting[first][1] for key in now)
        ended = data.draw(st.sampled_from(running))
        running.remove(ended)
        queue.finish(ended)
    assert sorted(started) == sorted(waiting)
