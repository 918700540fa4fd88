"""The objective of a study with a latency to meet: what its reports are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.mask import Mask
from distprune.core.retention import Reference
from distprune.core.units import UnitKind
from distprune.trial.latency_objective import LatencyObjective
from distprune.trial.reporter import report_milestones
from distprune.trial.results import LevelResult
from tests.core.latencies import make_latencies
from tests.trial.results import make_result

REFERENCE = Reference(dense=0.9, floor=0.5)
MILESTONES = (0.1, 0.2, 0.3)
OBJECTIVE = LatencyObjective(0.012, make_latencies())
"""Two layers of 4 heads and 20 neurons take 19 ms; each head is 1 ms and ten neurons are too."""


def keep(num_heads: int, num_neurons: int = 20) -> Mask:
    """Keep so many heads and neurons in each of two layers: 7 + 2 heads + 0.2 neurons ms."""
    return Mask(
        {
            UnitKind.HEAD: np.tile(np.arange(4) < num_heads, (2, 1)),
            UnitKind.NEURON: np.tile(np.arange(20) < num_neurons, (2, 1)),
        }
    )


def rate(retention: float, num_heads: int, num_neurons: int = 0) -> float:
    return OBJECTIVE.rate(keep(num_heads, num_neurons), retention)


def report(
    levels: Sequence[tuple[float, float, int]], milestones: tuple[float, ...] = MILESTONES
) -> list[float]:
    """Return the objectives of a trial with levels of (sparsity, metric, heads kept a layer)."""
    results: list[LevelResult] = []
    for level, (sparsity, metric, heads) in enumerate([(0.0, 0.9, 4), *levels]):
        mask = keep(heads, 0)
        results.append(make_result(level, sparsity, metric, packed_mask=mask.pack()))
    reports = report_milestones(results, milestones, REFERENCE, OBJECTIVE)
    return [one.objective for one in reports]


def test_within_the_limit_it_is_the_retention() -> None:
    assert rate(0.8, num_heads=2) == 0.8
    assert rate(0.8, num_heads=0) == 0.8
    assert rate(1.05, num_heads=2) == 1.05


def test_above_the_limit_by_hand() -> None:
    """3 heads and no neurons take 13 ms; the limit is 12."""
    assert rate(0.8, num_heads=3) == pytest.approx(-0.2 - 1 / 12)
    assert rate(0.8, num_heads=4) == pytest.approx(-0.2 - 3 / 12)
    assert rate(1.2, num_heads=3) == pytest.approx(-1 / 12)
    assert rate(-5.0, num_heads=3) == pytest.approx(-1 - 1 / 12)


def test_limit_itself_is_met() -> None:
    latencies = make_latencies()
    mask = keep(2, 5)
    assert LatencyObjective(latencies.predict(mask), latencies).rate(mask, 0.7) == 0.7


retentions = st.floats(-3.0, 1.3)
heads = st.integers(0, 4)
neurons = st.integers(0, 20)


@given(retentions, retentions, heads, neurons, heads, neurons)
def test_any_level_that_meets_it_beats_any_that_does_not(
    met: float, unmet: float, h: int, n: int, more_h: int, more_n: int
) -> None:
    latencies = make_latencies()
    fast, slow = keep(h, n), keep(more_h, more_n)
    if latencies.predict(fast) > 0.012 or latencies.predict(slow) < 0.012 * (1 + 1e-9):
        return
    assert OBJECTIVE.rate(fast, met) >= 0.0 > OBJECTIVE.rate(slow, unmet)


@given(retentions, heads, neurons, st.integers(0, 4), st.integers(0, 20))
def test_never_falls_as_units_are_removed(
    retention: float, h: int, n: int, removed_h: int, removed_n: int
) -> None:
    faster = keep(max(h - removed_h, 0), max(n - removed_n, 0))
    assert OBJECTIVE.rate(faster, retention) >= OBJECTIVE.rate(keep(h, n), retention) - 1e-12


@given(retentions, retentions, heads, neurons)
def test_never_falls_as_retention_rises(one: float, other: float, h: int, n: int) -> None:
    low, high = sorted((one, other))
    assert OBJECTIVE.rate(keep(h, n), low) <= OBJECTIVE.rate(keep(h, n), high)


def test_objective_is_the_best_so_far() -> None:
    objectives = report([(0.1, 0.9, 3), (0.2, 0.7, 2), (0.3, 0.8, 1)])
    assert objectives == pytest.approx([-1 / 12, 0.5, 0.75])
    assert report([(0.1, 0.9, 2), (0.2, 0.6, 1), (0.3, 0.5, 0)]) == pytest.approx([1.0] * 3)


def test_dense_level_does_not_count() -> None:
    """It would meet a generous limit with full retention, whatever the trial is."""
    generous = LatencyObjective(1.0, make_latencies())
    mask = keep(4).pack()
    results = [
        make_result(level, 0.1 * level, 0.9 - 0.1 * level, packed_mask=mask) for level in (0, 1)
    ]
    (only,) = report_milestones(results, (0.1,), REFERENCE, generous)
    assert only.objective == pytest.approx(0.75)


def test_levels_between_milestones_count() -> None:
    objectives = report([(0.05, 0.86, 2), (0.1, 0.7, 2)], milestones=(0.1,))
    assert objectives == pytest.approx([0.9])


def test_one_shot_reports_its_only_model_at_all_milestones() -> None:
    assert report([(0.3, 0.7, 1)]) == pytest.approx([0.5] * 3)


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 4)), min_size=3, max_size=3))
def test_objective_never_falls_along_a_trial(points: list[tuple[float, int]]) -> None:
    levels = [(m, *point) for m, point in zip(MILESTONES, points, strict=True)]
    objectives = report(levels)
    assert objectives == sorted(objectives)
    assert all(math.isfinite(objective) for objective in objectives)
