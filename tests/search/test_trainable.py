"""What a trial reports to Tune, and how its failures are told."""

from __future__ import annotations

import json
import math
from unittest.mock import patch

import pytest

from distprune.errors import ConfigError, StageError, StorageError
from distprune.search import trainable
from distprune.search.trainable import describe_failure
from distprune.search.tune_adapters import ABORT, FAILURE, MILESTONE, OBJECTIVE, REPORT
from distprune.trial.results import MilestoneReport
from tests.search.mixed_study import make_mixed_study
from tests.search.synthetic import collect_results, make_surroundings, walk_synthetic

STUDY = make_mixed_study()


def config_of(number: int) -> dict[str, object]:
    spec = STUDY.make_trial(STUDY.spec.start_with[number])
    return {"number": number, "spec": spec.model_dump_json()}


def test_one_report_for_each_milestone_in_order() -> None:
    results = collect_results(config_of(0), STUDY)
    assert [result[MILESTONE] for result in results] == [1, 2, 3, 4]
    for result in results:
        report = MilestoneReport.from_json(json.loads(result[REPORT]))
        assert report.milestone == result[MILESTONE]
        assert report.objective == result[OBJECTIVE]
        assert math.isfinite(report.objective)


def test_tune_is_given_few_numbers_to_keep() -> None:
    config = config_of(0)
    assert [type(value) for value in config.values()] == [int, str]
    for result in collect_results(config, STUDY):
        assert {name: type(value) for name, value in result.items()} == {
            MILESTONE: int,
            OBJECTIVE: float,
            REPORT: str,
        }


@pytest.mark.parametrize(("number", "outcome"), [(2, "diverged"), (3, "failed")])
def test_failure_is_the_last_report_and_no_milestone(number: int, outcome: str) -> None:
    first, last = collect_results(config_of(number), STUDY)
    assert first[MILESTONE] == 1
    assert MILESTONE not in last
    assert REPORT not in last
    assert math.isnan(last[OBJECTIVE])
    assert last[FAILURE]["outcome"] == outcome


def test_full_disk_is_no_failure_of_the_trial() -> None:
    results: list[dict[str, object]] = []
    with (
        patch.object(trainable.tune, "report", results.append),
        patch("tests.search.synthetic.measure_levels", side_effect=StorageError("full; free it")),
    ):
        walk_synthetic(config_of(0), make_surroundings(STUDY))
    (result,) = results
    assert result[ABORT] == "full; free it"
    assert FAILURE not in result


def test_our_own_errors_are_one_line_others_a_traceback() -> None:
    assert describe_failure(ConfigError("levels: 9; use fewer")) == "levels: 9; use fewer"
    wrapped = RuntimeError("ray::score()\n  File ...")
    wrapped.cause = StageError("stage score: its input is gone")  # type: ignore[attr-defined]
    assert describe_failure(wrapped) == "stage score: its input is gone"
    try:
        raise KeyError("lost")
    except KeyError as error:
        told = describe_failure(error)
    assert told.startswith("Traceback")
    assert told.endswith("KeyError: 'lost'")
