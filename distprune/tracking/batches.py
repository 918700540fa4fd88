"""Requests that stay within the limits that MLflow sets to one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_PARAMETERS = 100
MAX_METRICS = 1000


@dataclass(frozen=True)
class Point:
    """A value of a metric at a step."""

    name: str
    value: float
    step: int


def log_parameters(client: Any, run_id: str, parameters: Mapping[str, str]) -> None:
    """Write parameters down; those that the run has already stay as they are."""
    from mlflow.entities import Param

    entities = [Param(name, text) for name, text in sorted(parameters.items())]
    for batch in _cut(entities, MAX_PARAMETERS):
        client.log_batch(run_id, params=batch, synchronous=True)


def set_tags(client: Any, run_id: str, tags: Mapping[str, str]) -> None:
    """Set several tags of a run with one call."""
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)


def log_points(client: Any, run_id: str, points: Sequence[Point], time: float) -> None:
    """Write metrics down.

    Args:
        client: MLflow client.
        run_id: The run.
        points: What to write.
        time: Seconds since the epoch; a point with the same time is known to MLflow and dropped.
    """
    from mlflow.entities import Metric

    stamp = milliseconds(time)
    entities = [Metric(point.name, float(point.value), stamp, point.step) for point in points]
    for batch in _cut(entities, MAX_METRICS):
        client.log_batch(run_id, metrics=batch, synchronous=True)


def milliseconds(time: float) -> int:
    """Convert seconds since the epoch to MLflow's milliseconds."""
    return round(time * 1000)


def _cut(entities: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(entities), size):
        yield entities[begin : begin + size]
