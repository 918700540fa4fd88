"""The best of all levels under constraints, the nearest, and the fronts."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.cost import Sparsities
from distprune.core.mask import Mask
from distprune.core.retention import Reference
from distprune.core.units import EncoderShape, UnitKind
from distprune.library.constraints import (
    Constraints,
    Cost,
    Point,
    find_best,
    find_front,
    find_nearest,
    gather_points,
    list_costs,
)
from distprune.library.history import TrialRecord
from tests.core.latencies import make_latencies
from tests.library.records import make_start, reach
from tests.trial.results import make_result

SHAPE = EncoderShape(num_layers=2, num_heads=4, num_neurons=20, hidden_size=24, head_size=6)
REFERENCE = Reference(dense=0.9, floor=0.5)


def make_point(
    retention: float, share: float = 1.0, latency: float | None = None, **changes: Any
) -> Point:
    """Make a point that has kept this share of parameters and MACs."""
    values: dict[str, Any] = {
        "trial": 0,
        "level": 1,
        "sparsity": 1.0 - share,
        "metric": 0.5 + 0.4 * retention,
        "retention": retention,
        "sparsities": Sparsities(1 - share, 1 - share, 1 - share, 1 - share),
        "parameters": round(1000 * share),
        "latency": latency,
        "packed_mask": Mask.dense(SHAPE).pack(),
        "settings": {},
    }
    return Point(**{**values, **changes})


def keep(num_heads: int, num_neurons: int) -> Mask:
    return Mask(
        {
            UnitKind.HEAD: np.tile(np.arange(4) < num_heads, (2, 1)),
            UnitKind.NEURON: np.tile(np.arange(20) < num_neurons, (2, 1)),
        }
    )


def make_trial(number: int, levels: list[tuple[float, float, Mask]]) -> TrialRecord:
    """Make a trial of (sparsity, metric, mask) levels after the dense one."""
    record = TrialRecord(make_start(number))
    dense = (0.0, 0.9, Mask.dense(SHAPE))
    for level, (sparsity, metric, mask) in enumerate([dense, *levels]):
        result = make_result(level, sparsity, metric, packed_mask=mask.pack())
        key = f"{metric}" if level == 0 else f"{number} {level}"
        result = replace(result, lineage=replace(result.lineage, evaluation=key))
        record.reports[level] = reach(number, level, [result])
    return record


class TestGather:
    """From trials to points."""

    TRIALS = (
        make_trial(1, [(0.5, 0.7, keep(2, 10))]),
        make_trial(0, [(0.5, 0.8, keep(2, 10)), (0.75, 0.6, keep(1, 5))]),
    )

    def test_every_level_once_the_dense_model_among_them(self) -> None:
        points = gather_points(self.TRIALS, SHAPE, REFERENCE, 8)
        assert [(p.trial, p.level) for p in points] == [(0, 0), (0, 1), (0, 2), (1, 1)]
        assert [p.retention for p in points] == pytest.approx([1.0, 0.75, 0.25, 0.5])
        assert [p.latency for p in points] == [None] * 4

    def test_costs(self) -> None:
        points = gather_points(self.TRIALS, SHAPE, REFERENCE, 8, make_latencies())
        assert [p.latency for p in points] == pytest.approx([0.019, 0.013, 0.010, 0.013])
        assert [p.measure(Cost.MACS) for p in points] == pytest.approx([1.0, 0.5, 0.25, 0.5])
        assert points[1].sparsities.heads == 0.5
        assert points[1].parameters == round(points[1].measure(Cost.PARAMETERS) * 7000)
        assert points[1].mask == keep(2, 10)
        assert points[3].settings == {"pruning.mixing.coefficient": 0.1}

    def test_metric_whose_lower_values_are_better(self) -> None:
        loss = Reference(dense=0.9, floor=1.3, higher_is_better=False)
        points = gather_points(self.TRIALS, SHAPE, loss, 8)
        assert [p.retention for p in points] == pytest.approx([1.0, 1.25, 1.75, 1.5])

    def test_nothing_reached(self) -> None:
        assert gather_points([TrialRecord(make_start(0))], SHAPE, REFERENCE, 8) == []


POINTS = (
    make_point(1.0, 1.0, 0.020, level=0),
    make_point(0.97, 0.6, 0.010),
    make_point(0.96, 0.4, 0.012, trial=1),
    make_point(0.80, 0.3, 0.004, trial=2),
)


class TestBest:
    """What meets the constraints, and what of it is the best."""

    @pytest.mark.parametrize(
        ("constraints", "expected"),
        [
            (Constraints(), 0),
            (Constraints(max_latency=0.015), 1),
            (Constraints(max_macs=0.5), 2),
            (Constraints(max_parameters=0.6), 1),
            (Constraints(max_latency=0.011, max_macs=0.5), 3),
            (Constraints(max_latency=0.012, min_retention=0.96), 1),
            (Constraints(max_latency=0.009, min_retention=0.95), None),
            (Constraints(min_retention=1.01), None),
        ],
        ids=str,
    )
    def test_by_hand(self, constraints: Constraints, expected: int | None) -> None:
        best = find_best(POINTS, constraints)
        assert best == (None if expected is None else POINTS[expected])

    def test_limits_are_met_by_what_equals_them_up_to_rounding(self) -> None:
        point = make_point(0.1 + 0.2, 0.1 + 0.2, 0.1 + 0.2)
        for limit in (0.3, 0.30000000000000004):
            assert find_best([point], Constraints(max_macs=limit)) == point
            assert find_best([point], Constraints(max_latency=limit)) == point
        assert find_best([point], Constraints(min_retention=0.30000000000000009)) == point

    def test_ties(self) -> None:
        slow, fast = make_point(0.9, 0.5, 0.02), make_point(0.9, 0.6, 0.01, trial=1)
        assert find_best([slow, fast], Constraints()) == fast
        large, small = make_point(0.9, 0.6), make_point(0.9, 0.5, trial=1)
        assert find_best([large, small], Constraints()) == small
        early, late = make_point(0.9, trial=3), make_point(0.9, trial=4)
        assert find_best([late, early], Constraints()) == early

    def test_unknown_latency_meets_no_limit(self) -> None:
        assert find_best([make_point(0.9)], Constraints(max_latency=100.0)) is None

    def test_no_points(self) -> None:
        assert find_best([], Constraints()) is None
        assert find_nearest([], Constraints()) is None


class TestNearest:
    """Where none meets them."""

    def test_excess_by_hand(self) -> None:
        point = make_point(0.90, 0.5, 0.011)
        for constraints, excess in (
            (Constraints(), 0.0),
            (Constraints(max_latency=0.010), 0.1),
            (Constraints(max_latency=0.020), 0.0),
            (Constraints(min_retention=0.95), 0.05),
            (Constraints(max_latency=0.010, min_retention=0.95), 0.1),
            (Constraints(max_macs=0.4), 0.25),
            (Constraints(max_parameters=0.25), 1.0),
        ):
            assert constraints.measure_excess(point) == pytest.approx(excess)

    def test_furthest_constraint_decides(self) -> None:
        constraints = Constraints(max_latency=0.009, min_retention=0.95)
        assert find_nearest(POINTS, constraints) == POINTS[1]
        assert find_nearest(POINTS, Constraints(max_latency=0.003)) == POINTS[3]
        assert find_nearest(POINTS, Constraints(min_retention=1.2)) == POINTS[0]

    @given(st.floats(0.001, 0.03), st.floats(0.5, 1.1))
    def test_it_is_the_best_where_there_is_one(self, latency: float, retention: float) -> None:
        constraints = Constraints(max_latency=latency, min_retention=retention)
        best = find_best(POINTS, constraints)
        if best is not None:
            assert find_nearest(POINTS, constraints) == best


class TestFront:
    """Levels that none beats at less cost."""

    def test_by_hand(self) -> None:
        assert find_front(POINTS, Cost.LATENCY) == [POINTS[3], POINTS[1], POINTS[0]]
        assert find_front(POINTS, Cost.MACS) == [POINTS[3], POINTS[2], POINTS[1], POINTS[0]]

    def test_of_equal_points_the_first_stays(self) -> None:
        twins = [make_point(0.9, 0.5, trial=trial) for trial in (2, 1)]
        assert find_front(twins, Cost.MACS) == [twins[1]]

    def test_unknown_costs_are_passed_over(self) -> None:
        assert find_front([make_point(0.9)], Cost.LATENCY) == []
        assert list_costs([make_point(0.9)]) == [Cost.PARAMETERS, Cost.MACS]
        assert list_costs(POINTS) == list(Cost)

    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=12))
    def test_front_is_what_nothing_dominates(self, values: list[tuple[int, int]]) -> None:
        points = [make_point(r / 6, s / 6, trial=n) for n, (r, s) in enumerate(values)]
        front = find_front(points, Cost.MACS)
        places = {(p.retention, p.measure(Cost.MACS)) for p in front}
        assert len(places) == len(front)
        for point in points:
            is_dominated = any(
                other.retention >= point.retention
                and other.measure(Cost.MACS) <= point.measure(Cost.MACS)
                and (other.retention, other.measure(Cost.MACS))
                != (point.retention, point.measure(Cost.MACS))
                for other in points
            )
            assert ((point.retention, point.measure(Cost.MACS)) in places) != is_dominated
        for one, other in itertools.pairwise(front):
            assert one.measure(Cost.MACS) < other.measure(Cost.MACS)
            assert one.retention < other.retention


def test_unknown_latency_is_infinite() -> None:
    assert make_point(0.9).measure(Cost.LATENCY) == math.inf
