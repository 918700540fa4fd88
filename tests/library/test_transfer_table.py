"""The transfer table: gains over random masks, and the files that it is kept in."""

from __future__ import annotations

import csv
import io
import json

import pytest

from distprune.library.transfer_table import measure_spread
from tests.library.transfer_tables import make_table


def test_gains_are_paired_by_seed() -> None:
    assert make_table().gains("movies", "movies") == pytest.approx([0.1, 0.14])


def test_a_gain_is_better_than_random_whatever_the_metrics_direction() -> None:
    """An error of 0.5 beside a random mask's 0.4 is worse; 0.3 beside 0.6 is better."""
    assert make_table().gains("movies", "prices") == pytest.approx([-0.1, 0.3])


def test_spread_over_seeds() -> None:
    mean, spread = measure_spread([0.1, 0.3])
    assert (mean, spread) == (pytest.approx(0.2), pytest.approx(0.1 * 2**0.5))
    assert measure_spread([0.4]) == (0.4, None)


def test_json_has_every_value_and_its_summary() -> None:
    values = json.loads(make_table().to_json())
    assert values["schema"] == "distprune.transfer/1"
    cell = values["cells"][1]
    assert (cell["mask"], cell["task"]) == ("movies", "prices")
    assert cell["metrics"] == [0.5, 0.3]
    assert cell["metric_mean"] == pytest.approx(0.4)
    assert cell["random_mean"] == pytest.approx(0.5)
    assert cell["gain_mean"] == pytest.approx(0.1)
    assert cell["gain_sd"] == pytest.approx(0.4 / 2**0.5)
    movies, prices = values["columns"]
    assert (movies["own_mask"], movies["own_mean"]) == ("movies", pytest.approx(0.82))
    assert movies["dense_mean"] == pytest.approx(0.91)
    assert prices["own_mask"] is None
    assert values["rows"][1]["home"] is None


def test_csv_has_a_line_for_each_mask_task_and_seed() -> None:
    rows = list(csv.DictReader(io.StringIO(make_table().to_csv())))
    assert len(rows) == 8
    assert rows[3] == {
        "mask": "movies",
        "found_on": "movies",
        "task": "prices",
        "metric": "mean_squared_error",
        "seed": "2",
        "report": "0.3",
        "random": "0.6",
        "dense": "0.92",
        "gain": "0.3",
    }
    assert rows[-1]["found_on"] == ""
