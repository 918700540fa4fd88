"""Sums over a study: what was computed, and what one trial after the other would have cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distprune.library.history import TrialRecord
from distprune.library.study_usage import read_shared, record_shared, sum_up_study
from distprune.trial.usage import StageUse, Usage
from tests.library.records import make_start, reach
from tests.trial.results import make_results

DENSE = StageUse("dense", "dense", True, 60.0, 1000)
SCORE = StageUse("score", "score", True, 5.0, 10)


def make_trial(number: int, *uses: StageUse) -> TrialRecord:
    (level,) = make_results([0.0], [0.9])
    record = TrialRecord(make_start(number))
    record.reports[1] = reach(number, 1, [replace(level, uses=uses)])
    return record


def reuse(use: StageUse) -> StageUse:
    return replace(use, is_computed=False)


def test_one_trial_saves_nothing() -> None:
    trials = [make_trial(0, reuse(DENSE), SCORE)]
    assert sum_up_study([DENSE], trials) == Usage(2, 0, 65.0, 0.0, 1010)


def test_each_further_trial_saves_what_it_reuses() -> None:
    trials = [make_trial(0, reuse(DENSE), SCORE), make_trial(1, reuse(DENSE), reuse(SCORE))]
    assert sum_up_study([DENSE], trials) == Usage(2, 2, 65.0, 65.0, 1010)


def test_a_repeated_study_saves_everything() -> None:
    trials = [make_trial(0, reuse(DENSE), reuse(SCORE))]
    assert sum_up_study([reuse(DENSE)], trials) == Usage(0, 2, 0.0, 65.0, 0)


def test_what_an_earlier_session_computed_stays_computed(tmp_path: Path) -> None:
    path = tmp_path / "shared_stages.json"
    assert read_shared(path) == ()
    assert record_shared(path, [DENSE]) == (DENSE,)
    assert record_shared(path, [reuse(DENSE), SCORE]) == (DENSE, SCORE)
    assert record_shared(path, []) == (DENSE, SCORE) == read_shared(path)
    assert record_shared(path, [reuse(SCORE)]) == (DENSE, SCORE)
