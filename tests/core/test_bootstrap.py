"""The bootstrap by properties, and by how often its intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distprune.core import bootstrap
from distprune.core.bootstrap import (
    Interval,
    Resampled,
    bootstrap_difference,
    resample_mean,
    resample_metric,
    stretch_seeds,
)

Floats = NDArray[np.float64]


def simulate(
    generator: np.random.Generator, num_seeds: int, examples: int = 60, difference: float = 0.0
) -> list[Floats]:
    """Return differences of two models, [example] for each seed: seeds, examples, noise."""
    of_seeds = generator.normal(0.0, 0.1, num_seeds)
    of_examples = generator.normal(0.0, 0.8, examples)
    return [
        difference + of_seed + of_examples + generator.normal(0.0, 0.3, examples)
        for of_seed in of_seeds
    ]


def compare(
    differences: list[Floats], confidence: float = 0.95, num_resamples: int = 400
) -> Interval:
    nothing = np.zeros_like(differences[0])
    first = [resample_mean(scores, num_resamples, 0) for scores in differences]
    second = [resample_mean(nothing, num_resamples, 0) for _ in differences]
    return bootstrap_difference(first, second, confidence, 0)


def count_covered(num_seeds: int, confidence: float = 0.95, rounds: int = 300) -> float:
    """Return how often the interval holds the true difference, 0.5."""
    generator = np.random.default_rng(num_seeds)
    covered = 0
    for _ in range(rounds):
        interval = compare(simulate(generator, num_seeds, difference=0.5), confidence)
        covered += interval.low <= 0.5 <= interval.high
    return covered / rounds


@pytest.fixture
def fewer_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "NUM_REPLICATES", 800)


@pytest.mark.usefixtures("fewer_replicates")
@pytest.mark.parametrize(("num_seeds", "highest"), [(2, 1.0), (3, 0.99), (5, 0.98), (10, 0.98)])
def test_intervals_hold_the_truth_as_often_as_they_say(num_seeds: int, highest: float) -> None:
    """Wider than need be for two seeds: the noise of the examples is stretched with them."""
    assert 0.92 <= count_covered(num_seeds) <= highest


@pytest.mark.usefixtures("fewer_replicates")
def test_without_the_stretch_few_seeds_would_be_trusted_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seeds alone, no examples: three of them, drawn anew, cannot reach far enough."""
    monkeypatch.setattr(bootstrap, "stretch_seeds", lambda *_: 1.0)
    generator = np.random.default_rng(0)
    held = [
        compare([np.full(1, value) for value in generator.normal(0.0, 1.0, 3)], num_resamples=100)
        for _ in range(400)
    ]
    assert np.mean([interval.low <= 0 <= interval.high for interval in held]) < 0.8


@pytest.mark.usefixtures("fewer_replicates")
@pytest.mark.parametrize("num_seeds", [2, 3, 4, 5])
def test_seeds_alone_are_covered_too(num_seeds: int) -> None:
    """The hardest case: nothing varies but the seeds."""
    generator = np.random.default_rng(1)
    held = [
        compare(
            [np.full(1, value) for value in generator.normal(0.0, 1.0, num_seeds)],
            num_resamples=100,
        )
        for _ in range(600)
    ]
    share = np.mean([interval.low <= 0 <= interval.high for interval in held])
    assert 0.91 <= share <= 0.98


def test_one_seed_gives_no_interval() -> None:
    one = [resample_mean(np.ones(4), 10, 0)]
    with pytest.raises(ValueError, match="needs two at least"):
        bootstrap_difference(one, one, 0.95, 0)
    with pytest.raises(ValueError, match="the same for both"):
        bootstrap_difference(one * 3, one * 2, 0.95, 0)


scores = st.lists(st.integers(0, 1), min_size=5, max_size=30)


@given(st.lists(st.integers(0, 2**20), min_size=2, max_size=5), st.integers(5, 30))
def test_equal_arms_do_not_differ(seeds: list[int], examples: int) -> None:
    arms = [
        resample_mean(np.random.default_rng(seed).integers(0, 2, examples).astype(float), 50, 0)
        for seed in seeds
    ]
    assert bootstrap_difference(arms, arms, 0.95, 0) == Interval(0.0, 0.0, 0.0, 0.95)


@given(st.integers(0, 1000), st.integers(2, 5), st.floats(0.5, 0.999))
def test_it_is_antisymmetric_and_orders_its_ends(
    seed: int, num_seeds: int, confidence: float
) -> None:
    generator = np.random.default_rng(seed)
    first, second = (
        [resample_mean(generator.random(20), 60, 0) for _ in range(num_seeds)] for _ in range(2)
    )
    forth = bootstrap_difference(first, second, confidence, 3)
    back = bootstrap_difference(second, first, confidence, 3)
    assert forth.low <= forth.high
    assert back.estimate == pytest.approx(-forth.estimate, abs=1e-12)
    assert (back.low, back.high) == (
        pytest.approx(-forth.high, abs=1e-12),
        pytest.approx(-forth.low, abs=1e-12),
    )
    assert forth == bootstrap_difference(first, second, confidence, 3)


@given(st.integers(0, 1000))
def test_more_confidence_is_a_wider_interval(seed: int) -> None:
    differences = simulate(np.random.default_rng(seed), 3)
    narrow, wide = (compare(differences, confidence, 100) for confidence in (0.9, 0.99))
    assert wide.low <= narrow.low <= narrow.high <= wide.high


@given(st.integers(0, 1000), st.floats(-2.0, 2.0))
def test_a_shift_of_one_model_shifts_the_interval(seed: int, shift: float) -> None:
    differences = simulate(np.random.default_rng(seed), 3)
    before = compare(differences, num_resamples=100)
    after = compare([scores + shift for scores in differences], num_resamples=100)
    for name in ("estimate", "low", "high"):
        assert getattr(after, name) == pytest.approx(getattr(before, name) + shift, abs=1e-9)


@given(st.lists(st.integers(0, 1), min_size=2, max_size=40), st.integers(0, 99))
def test_mean_and_general_path_agree(hits: list[int], seed: int) -> None:
    values = np.array(hits, dtype=np.float64)
    fast = resample_mean(values, 30, seed)
    slow = resample_metric(lambda rows: float(values[rows].mean()), len(values), 30, seed)
    assert fast.observed == pytest.approx(slow.observed)
    np.testing.assert_allclose(fast.replicates, slow.replicates)


def test_both_models_are_resampled_with_the_same_examples() -> None:
    """Models that fail on the same examples differ in nothing, however they are drawn."""
    values = np.random.default_rng(0).random(50)
    one, other = resample_mean(values, 40, 0), resample_mean(values + 0.1, 40, 0)
    np.testing.assert_allclose(other.replicates - one.replicates, 0.1)


def test_draws_do_not_depend_on_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(50)
    whole = resample_mean(values, 40, 0)
    monkeypatch.setattr(bootstrap, "BLOCK", 120)
    np.testing.assert_array_equal(resample_mean(values, 40, 0).replicates, whole.replicates)


def test_stretch_by_hand() -> None:
    # t(0.975) with one degree of freedom is 12.706, the normal quantile 1.95996.
    assert stretch_seeds(2, 0.95) == pytest.approx(2**0.5 * 12.7062 / 1.95996, rel=1e-4)
    assert stretch_seeds(10_000, 0.95) == pytest.approx(1.0, abs=1e-3)
    assert stretch_seeds(3, 0.99) > stretch_seeds(3, 0.95) > stretch_seeds(4, 0.95)


def test_zero_is_excluded_from_either_side() -> None:
    assert Interval(1.0, 0.1, 2.0, 0.95).excludes_zero
    assert Interval(-1.0, -2.0, -0.1, 0.95).excludes_zero
    assert not Interval(1.0, 0.0, 2.0, 0.95).excludes_zero
    assert not Interval(0.0, -1.0, 1.0, 0.95).excludes_zero


def test_difference_by_hand() -> None:
    """Two seeds, no examples to draw: replicates are the mean, or a seed's own, stretched."""
    first = [Resampled(value, np.array([value] * 4000)) for value in (0.3, 0.1)]
    second = [Resampled(0.0, np.zeros(4000))] * 2
    interval = bootstrap_difference(first, second, 0.95, 0)
    reach = 0.1 * stretch_seeds(2, 0.95)
    assert interval.estimate == pytest.approx(0.2)
    assert (interval.low, interval.high) == (
        pytest.approx(0.2 - reach),
        pytest.approx(0.2 + reach),
    )
