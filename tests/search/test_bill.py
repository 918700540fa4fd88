"""Sums of rounds, worked out by hand."""

from __future__ import annotations

import pytest

from distprune.search.bill import sum_up
from distprune.search.simulation import Course, PricedStage

DENSE = PricedStage("d", "dense", "dense", 1800.0, slots=2, num_bytes=100)
RETRAIN = PricedStage("r", "retrain", "retrain", 360.0, num_bytes=10)
SHORT = Course(3600.0, 1800.0, (DENSE, RETRAIN), (DENSE, DENSE, RETRAIN), {1: 2})
LONG = Course(7200.0, 1800.0, (DENSE, RETRAIN, RETRAIN), (DENSE, DENSE, RETRAIN), {1: 2, 2: 1})


def test_rounds_are_averaged() -> None:
    bill = sum_up([SHORT, LONG], num_milestones=3, cpus=4, gpus=0.5)
    assert bill.wall_s == 5400.0
    assert bill.wall_range_s == pytest.approx((3960.0, 6840.0))
    assert bill.before_trials_s == 1800.0
    # Dense: half an hour on 2 x 4 cores; 1.5 retrainings of 0.1 h on 4.
    assert bill.core_hours == pytest.approx(4.0 + 0.6)
    assert bill.unshared_core_hours == pytest.approx(8.0 + 0.4)
    assert bill.gpu_hours == pytest.approx((0.5 + 0.15) * 0.5)
    assert bill.num_bytes == pytest.approx(115)
    assert bill.reached == {1: 2.0, 2: 0.5, 3: 0.0}
    assert [kind.kind for kind in bill.kinds] == ["dense", "retrain"]
    retrain = bill.kinds[1]
    assert (retrain.num_computed, retrain.num_needed, retrain.stage_s) == (1.5, 1.0, 360.0)


def test_what_comes_before_is_added_to_all_times() -> None:
    bill = sum_up([SHORT], num_milestones=1, cpus=1, gpus=0.0)
    later = bill.begin_with(60.0, 1000)
    assert later.wall_s == bill.wall_s + 60
    assert later.wall_range_s == (3660.0, 3660.0)
    assert later.before_trials_s == 1860.0
    assert later.num_bytes == bill.num_bytes + 1000
    assert later.core_hours == bill.core_hours
