"""Requests within MLflow's limits, against a client that only counts."""

from __future__ import annotations

from typing import Any

import pytest

from distprune.tracking.batches import Point, log_parameters, log_points, milliseconds

pytestmark = pytest.mark.xdist_group("mlflow")


class Recorder:
    """Remembers its requests."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def log_batch(self, run_id: str, **request: Any) -> None:
        self.requests.append(request)


def test_many_parameters_take_several_requests() -> None:
    client = Recorder()
    log_parameters(client, "run", {f"name{number:03d}": "value" for number in range(250)})
    assert [len(request["params"]) for request in client.requests] == [100, 100, 50]


def test_the_metrics_of_a_milestone_are_one_request() -> None:
    client = Recorder()
    log_points(client, "run", [Point("a", 1, step) for step in range(900)], 2.5)
    (request,) = client.requests
    assert {metric.timestamp for metric in request["metrics"]} == {2500}
    assert [metric.step for metric in request["metrics"]] == list(range(900))


def test_a_thousand_metrics_are_the_limit() -> None:
    client = Recorder()
    log_points(client, "run", [Point("a", 1, step) for step in range(1001)], 0.0)
    assert [len(request["metrics"]) for request in client.requests] == [1000, 1]


def test_nothing_to_log_is_no_request() -> None:
    client = Recorder()
    log_points(client, "run", [], 0.0)
    log_parameters(client, "run", {})
    assert client.requests == []


def test_milliseconds() -> None:
    assert milliseconds(1_700_000_000.1234) == 1_700_000_000_123
