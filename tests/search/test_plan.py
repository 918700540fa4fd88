"""A study's plan: its rule of stopping, and all of it on a tiny study."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.search import plan as module
from distprune.search.plan import PlanRequest, make_rule, plan_study, play
from distprune.search.simulation import PlannedLevel, PlannedStudy, PricedStage, Room
from distprune.search.study_file import check_study
from tests.cli.tiny_search import tiny_values
from tests.search.successive_halving import SuccessiveHalving
from tests.search.synthetic import make_study

MILESTONES = [0.1, 0.2, 0.3, 0.4, 0.6]
ORDERS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12, unique=True)


@given(ORDERS, st.integers(2, 3), st.integers(1, 2), st.integers(1, 3))
def test_rule_is_that_of_the_paper(
    qualities: list[float], factor: int, grace: int, comparable: int
) -> None:
    """One trial after the other, each as far as it may go."""
    stopping = {"reduction_factor": factor, "grace_milestones": grace}
    study = make_study(milestones=MILESTONES, stopping=stopping)
    goes_on = make_rule(study, comparable, qualities)
    halving = SuccessiveHalving(factor, max(grace, comparable), len(MILESTONES))
    for number, quality in enumerate(qualities):
        for milestone in range(1, len(MILESTONES) + 1):
            decision = goes_on(number, milestone)
            assert decision == halving.goes_on(milestone, quality)
            if not decision:
                break


def test_without_stopping_all_go_on() -> None:
    goes_on = make_rule(make_study(stopping=None), 1, [0.0, 1.0])
    assert all(goes_on(number, milestone) for number in range(2) for milestone in range(1, 3))


def test_rounds_differ_in_who_survives_and_not_in_where_they_begin() -> None:
    study = make_study(num_trials=8)
    trials = tuple(
        tuple(
            PlannedLevel(
                (PricedStage(f"{number}.{level}", "retrain", "retrain", 1.0),),
                PricedStage(f"{number}.{level} on report", "evaluate", "evaluate", 0.0),
                (level,),
                1,
            )
            for level in (1, 2, 3)
        )
        for number in range(8)
    )
    report = PricedStage("report", "evaluate", "evaluate", 0.0)
    planned = PlannedStudy((), trials, report)
    courses = list(play(study, planned, Room(1, 1), comparable=1))
    assert len(courses) == module.ROUNDS
    assert {course.reached[1] for course in courses} == {8}
    survivors = [course.reached[2] for course in courses]
    assert len(set(survivors)) > 1
    assert 3 <= np.mean(survivors) <= 6
    again = list(play(study, planned, Room(1, 1), comparable=1))
    assert [course.seconds for course in again] == [course.seconds for course in courses]


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("ignore")
def test_tiny_study_is_planned_and_nothing_is_left(
    tmp_path: Path,
    body_checkpoint: Path,
    word_task: Path,
    ray_cluster: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def connect(*arguments: Any) -> Any:
        return nullcontext()

    monkeypatch.setattr(module, "connect_cluster", connect)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    study = check_study(tiny_values(tmp_path / "studies", body_checkpoint, word_task))
    phases: list[str] = []
    planned = plan_study(PlanRequest(study), phases.append)
    bill = planned.bill
    assert any(phase.startswith("Timing dense, evaluate, probe") for phase in phases)
    assert bill.reached[1] == 4.0
    assert bill.reached[1] >= bill.reached[2] >= bill.reached[3] >= 1.0
    assert 0 < bill.before_trials_s < bill.wall_s
    assert bill.wall_range_s[0] <= bill.wall_s <= bill.wall_range_s[1]
    assert 0 < bill.core_hours < bill.unshared_core_hours
    assert bill.num_bytes > 0
    dense = next(kind for kind in bill.kinds if kind.kind == "dense")
    assert (dense.num_computed, dense.num_needed) == (1.0, 4.0)
    assert not (tmp_path / "studies").exists()
    assert list(scratch.iterdir()) == []
