"""The median's interval: known ranks, and that it covers what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distprune.core.median_interval import MIN_COUNT, count_outside, estimate_median
from distprune.errors import ConfigError


@pytest.mark.parametrize(
    ("count", "rank"), [(0, 0), (5, 0), (6, 1), (8, 1), (9, 2), (20, 6), (30, 10), (100, 40)]
)
def test_ranks_of_the_textbook(count: int, rank: int) -> None:
    assert count_outside(count) == rank


@given(st.integers(MIN_COUNT, 300))
def test_rank_is_the_largest_that_covers(count: int) -> None:
    rank = count_outside(count)
    assert stats.binom.cdf(rank - 1, count, 0.5) <= 0.025
    assert stats.binom.cdf(rank, count, 0.5) > 0.025


def test_interval_is_made_of_measurements() -> None:
    estimate = estimate_median([9.0, 1.0, 2.0, 8.0, 3.0, 7.0, 4.0, 6.0, 5.0])
    assert (estimate.median, estimate.low, estimate.high, estimate.count) == (5.0, 2.0, 8.0, 9)


@given(st.lists(st.floats(0.1, 10.0), min_size=MIN_COUNT, max_size=60))
def test_median_lies_within(values: list[float]) -> None:
    estimate = estimate_median(values)
    assert min(values) <= estimate.low <= estimate.median <= estimate.high <= max(values)


def test_interval_covers_the_median_of_skewed_noise() -> None:
    draws = np.random.default_rng(0).exponential(size=(2000, 20))
    estimates = [estimate_median(row) for row in draws.tolist()]
    covered = np.mean([one.low <= np.log(2) <= one.high for one in estimates])
    assert 0.945 <= covered <= 0.985


def test_too_few_measurements() -> None:
    with pytest.raises(ConfigError, match="rounds: 5; a 95 % interval takes 6 at least"):
        estimate_median([1.0] * 5)
