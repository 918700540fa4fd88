"""A search with a latency to meet, from its study file to the question that it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distprune.cli.constraint_answer import find_answer
from distprune.cli.constraint_question import Question
from distprune.core.latency_table import read_table, write_table
from distprune.library.leaderboard import read_leaderboard
from tests.cli.ended_study import MILESTONES, read_records
from tests.cli.sessions import Ended, finish, start_search
from tests.core.latencies import make_latencies, make_table

LIMIT_MS = 15.0
"""The tiny model takes 19 ms dense, and 16.6, 14.2 and 11.8 ms at the milestones."""


@pytest.fixture(scope="module")
def searched(make_search: Callable[[str], Path]) -> Ended:
    study = make_search("latency")
    table = study.parent / "measured.json"
    write_table(make_table(), table)
    objective = {"latency_ms": LIMIT_MS, "table": str(table), "machine": "any"}
    with start_search(study, "--set", f"objective={json.dumps(objective)}") as session:
        return finish(session)


@pytest.mark.slow
def test_trials_are_rated_by_what_meets_it(searched: Ended) -> None:
    """Latencies of masks that keep equally many units differ a little: all meet it, or none."""
    for record in read_records(searched.folder).values():
        for milestone, event in record.reports.items():
            met = [
                level
                for level in record.levels
                if level.level > 0
                and level.sparsity <= MILESTONES[milestone - 1] + 1e-9
                and make_latencies().predict(level.mask) <= LIMIT_MS / 1e3
            ]
            assert bool(met) == (milestone > 1)
            assert (event.report.objective >= 0) == bool(met)


@pytest.mark.slow
def test_nobody_is_stopped_before_it_can_be_met(searched: Ended) -> None:
    for record in read_records(searched.folder).values():
        assert len(record.reports) >= 2


@pytest.mark.slow
def test_study_answers_with_its_own_table(searched: Ended) -> None:
    folder = searched.folder
    assert read_table(folder.latency_table) == make_table()
    question = Question(max_latency_ms=LIMIT_MS, min_retention=-9.0)
    answer = find_answer(folder, read_leaderboard(folder), question)
    assert answer.best is not None
    assert answer.best.latency is not None
    assert answer.best.latency <= LIMIT_MS / 1e3
    best = max(
        record.reports[max(record.reports)].report.objective
        for record in read_records(folder).values()
    )
    assert max(answer.best.retention, 0.0) == pytest.approx(best)
