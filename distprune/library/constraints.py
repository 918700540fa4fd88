"""What a study can answer afterwards: the best of all its levels under any constraints.

Every level of every trial is a candidate, the dense model among them, also where no milestone was.
Masks were trained and measured on the way; only their latency is predicted, by a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from distprune.core.cost import Sparsities, encoder_cost, measure_sparsities
from distprune.core.latency_table import LayerLatencies
from distprune.core.mask import Mask
from distprune.core.retention import Reference
from distprune.core.selection import ROUNDING
from distprune.core.units import EncoderShape
from distprune.library.history import TrialRecord


class Cost(StrEnum):
    """What a level costs, and so what it is weighed against."""

    LATENCY = "latency"
    PARAMETERS = "parameters"
    MACS = "macs"


@dataclass(frozen=True)
class Point:
    """One level of one trial, with what it is worth and what it costs.

    Attributes:
        trial: Number of its trial; of several trials with the same level, the first.
        level: Its level in that trial; 0 = the dense model.
        sparsity: The level's target sparsity, in [0, 1).
        metric: Metric on the search split.
        retention: Share of the dense model's advantage over the constant predictor.
        sparsities: Its sparsity in heads, neurons, encoder parameters and MACs.
        parameters: Parameters of its encoder.
        latency: Predicted seconds; None = there is no table.
        packed_mask: Its mask, as text.
        settings: The searched settings of its trial.
    """

    trial: int
    level: int
    sparsity: float
    metric: float
    retention: float
    sparsities: Sparsities
    parameters: int
    latency: float | None
    packed_mask: str
    settings: Mapping[str, Any]

    @property
    def mask(self) -> Mask:
        """The units that are kept."""
        return Mask.unpack(self.packed_mask)

    def measure(self, cost: Cost) -> float:
        """Return a cost: seconds, or the share of the dense encoder that is left."""
        if cost is Cost.LATENCY:
            return math.inf if self.latency is None else self.latency
        removed = self.sparsities
        return 1.0 - (removed.encoder_parameters if cost is Cost.PARAMETERS else removed.macs)


@dataclass(frozen=True)
class Constraints:
    """What a level has to meet; None = anything does.

    Attributes:
        max_latency: Most seconds.
        min_retention: Least retention.
        max_parameters: Largest share of the dense encoder's parameters, in (0, 1].
        max_macs: Largest share of the dense encoder's MACs, in (0, 1].
    """

    max_latency: float | None = None
    min_retention: float | None = None
    max_parameters: float | None = None
    max_macs: float | None = None

    def limit(self, cost: Cost) -> float | None:
        """Return the limit on a cost."""
        limits = {
            Cost.LATENCY: self.max_latency,
            Cost.PARAMETERS: self.max_parameters,
            Cost.MACS: self.max_macs,
        }
        return limits[cost]

    def measure_excess(self, point: Point) -> float:
        """Return how far a point is from meeting them, by the constraint that it is furthest from.

        Of a cost the share above its limit, of retention the difference; 0 = all are met.
        """
        excesses = [0.0]
        for cost in Cost:
            limit = self.limit(cost)
            if limit is not None:
                excesses.append(point.measure(cost) / limit - 1.0)
        if self.min_retention is not None:
            excesses.append(self.min_retention - point.retention)
        worst = max(excesses)
        return 0.0 if worst <= ROUNDING else worst


def gather_points(
    trials: Iterable[TrialRecord],
    shape: EncoderShape,
    reference: Reference,
    num_tokens: float,
    latencies: LayerLatencies | None = None,
) -> list[Point]:
    """Return every level of all trials once, in the order of the trials.

    Args:
        trials: Trials of one study.
        shape: Counts of the dense encoder.
        reference: Dense metric and floor of the study.
        num_tokens: Tokens of a sequence, for MACs.
        latencies: Predict the latency of each mask; None = it stays unknown.
    """
    points: dict[str, Point] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        for result in trial.levels:
            if result.lineage.evaluation in points:
                continue
            mask = result.mask
            points[result.lineage.evaluation] = Point(
                trial=trial.number,
                level=result.level,
                sparsity=result.sparsity,
                metric=result.metric,
                retention=reference.retention(result.metric),
                sparsities=measure_sparsities(shape, mask, num_tokens),
                parameters=encoder_cost(shape, mask, num_tokens).parameters,
                latency=None if latencies is None else latencies.predict(mask),
                packed_mask=result.packed_mask,
                settings=dict(trial.start.parameters),
            )
    return list(points.values())


def find_best(points: Iterable[Point], constraints: Constraints) -> Point | None:
    """Return the point of highest retention that meets all constraints; None = none does.

    Ties go to the lower latency, then to fewer parameters, then to the earlier trial.
    """
    meeting = [point for point in points if constraints.measure_excess(point) == 0.0]
    return max(meeting, key=_worth, default=None)


def find_nearest(points: Iterable[Point], constraints: Constraints) -> Point | None:
    """Return the point that is least far from meeting all constraints; None = there is no point."""
    return min(
        points,
        key=lambda p: (constraints.measure_excess(p), *(-part for part in _worth(p))),
        default=None,
    )


def find_front(points: Iterable[Point], cost: Cost) -> list[Point]:
    """Return the points that no other beats in retention without costing more, cost increasing.

    Points whose cost is unknown are passed over; of equal points the first stays.
    """
    known = [point for point in points if math.isfinite(point.measure(cost))]
    front: list[Point] = []
    for point in sorted(known, key=lambda p: (p.measure(cost), -p.retention, p.trial, p.level)):
        if not front or point.retention > front[-1].retention:
            front.append(point)
    return front


def list_costs(points: Sequence[Point]) -> list[Cost]:
    """Return the costs that are known of the points."""
    has_latency = any(point.latency is not None for point in points)
    return [cost for cost in Cost if cost is not Cost.LATENCY or has_latency]


def _worth(point: Point) -> tuple[float, ...]:
    latency = point.measure(Cost.LATENCY)
    return point.retention, -latency, -float(point.parameters), -float(point.trial)
