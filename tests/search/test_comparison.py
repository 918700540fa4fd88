"""Who gets another seed, and what is concluded."""

from __future__ import annotations

import numpy as np
import pytest

from distprune.core.bootstrap import Resampled
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.search.comparison import BestMask, Comparison, PlannedArm
from tests.library.graded import make_good_mask, make_row, make_spec

SEEDS = (1, 2, 3, 4, 5)
MASK, OTHER = make_good_mask(), make_good_mask(good=False)


def make_metric(value: float) -> Resampled:
    return Resampled(value, np.full(2000, value))


def make_comparison(*controls: PlannedArm, higher_is_better: bool = True) -> Comparison:
    best = BestMask((make_row(MASK, 0.3), make_row(MASK, 0.5)), make_spec(), MASK)
    return Comparison(best, controls, SEEDS, 0.95, higher_is_better)


def spend(comparison: Comparison, seeds: tuple[int, ...], **offsets: float) -> None:
    """Record metrics of what is open; arms are at 0.8, moved by `offsets`; seeds move them too."""
    for seed in seeds:
        for name in comparison.list_open():
            metric = 0.8 + offsets.get(name, 0.0) + 0.001 * np.sin(10 * seed + len(name))
            comparison.record(name, seed, make_metric(metric))
    comparison.look()


RANDOM, LAMBDA = PlannedArm.fixed("random", OTHER), PlannedArm.fixed("lambda_0", OTHER)
ABSENT = PlannedArm("inverted", None, "does not fit")


def test_everything_that_has_a_mask_is_open_at_first() -> None:
    assert make_comparison(RANDOM, LAMBDA, ABSENT).list_open() == [
        "best",
        "dense",
        "random",
        "lambda_0",
    ]


def test_settled_control_gets_no_further_seed() -> None:
    comparison = make_comparison(RANDOM, LAMBDA)
    spend(comparison, (1, 2, 3), random=-0.1)
    assert comparison.list_open() == ["best", "dense", "lambda_0"]
    spend(comparison, (4,), random=-0.1)
    spend(comparison, (5,), random=-0.1)
    found = {arm.name: arm for arm in comparison.conclude().arms}
    assert [len(found[name].metrics) for name in ("best", "dense", "random", "lambda_0")] == [
        5,
        5,
        3,
        5,
    ]
    random, other = found["random"].difference, found["lambda_0"].difference
    assert random is not None
    assert other is not None
    assert (random.num_seeds, random.is_settled, random.confidence) == (3, True, 0.95)
    assert random.estimate == pytest.approx(0.1, abs=0.002)
    assert (other.num_seeds, other.is_settled) == (5, False)


def test_settled_difference_stays_as_it_was_decided() -> None:
    comparison = make_comparison(RANDOM, LAMBDA)
    spend(comparison, (1, 2, 3), random=-0.1)
    before = comparison.conclude().arms[2].difference
    spend(comparison, (4, 5))
    assert comparison.conclude().arms[2].difference == before


def test_nothing_is_open_when_all_controls_are_settled() -> None:
    """Also though the dense model is not told apart from the best."""
    comparison = make_comparison(RANDOM, ABSENT)
    spend(comparison, (1, 2, 3), random=-0.1)
    assert comparison.list_open() == []
    mask = comparison.conclude()
    assert mask.seeds == (1, 2, 3)
    dense = mask.arms[1].difference
    assert dense is not None
    assert not dense.is_settled


def test_dense_model_alone_keeps_being_compared() -> None:
    comparison = make_comparison(ABSENT)
    spend(comparison, (1, 2, 3), dense=0.1)
    assert comparison.list_open() == ["best", "dense"]
    spend(comparison, (4, 5), dense=0.1)
    dense = comparison.conclude().arms[1].difference
    assert dense is not None
    assert dense.num_seeds == 5
    assert dense.estimate == pytest.approx(-0.1, abs=0.002)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_difference_is_positive_where_the_best_is_better(higher_is_better: bool) -> None:
    comparison = make_comparison(RANDOM, higher_is_better=higher_is_better)
    spend(comparison, (1, 2, 3), random=-0.1 if higher_is_better else 0.1)
    difference = comparison.conclude().arms[2].difference
    assert difference is not None
    assert 0 < difference.low <= difference.estimate <= difference.high


def test_one_seed_makes_no_interval() -> None:
    comparison = make_comparison(RANDOM)
    spend(comparison, (1,), random=-0.1)
    assert [arm.difference for arm in comparison.conclude().arms] == [None, None, None]


def test_arm_that_diverges_is_given_up() -> None:
    comparison = make_comparison(RANDOM, LAMBDA)
    spend(comparison, (1, 2, 3))
    comparison.give_up("lambda_0", "diverged with seed 4: nan")
    spend(comparison, (4, 5))
    arm = {arm.name: arm for arm in comparison.conclude().arms}["lambda_0"]
    assert (arm.difference, arm.note) == (None, "diverged with seed 4: nan")
    assert len(arm.metrics) == 3
    assert comparison.list_open() == ["best", "dense", "random"]


def test_nothing_is_compared_with_a_best_mask_that_diverges() -> None:
    comparison = make_comparison(RANDOM)
    comparison.record("random", 1, make_metric(0.5))
    comparison.give_up("best", "diverged with seed 1: nan")
    comparison.look()
    assert comparison.list_open() == []
    mask = comparison.conclude()
    assert (mask.seeds, mask.best.note) == ((), "diverged with seed 1: nan")
    assert all(arm.difference is None for arm in mask.arms)


def test_conclusion_names_masks_and_what_the_study_had() -> None:
    comparison = make_comparison(RANDOM, ABSENT)
    mask = comparison.conclude()
    assert (mask.milestones, mask.trial, mask.level) == ((0.3, 0.5), 3, 1)
    assert (mask.search_metric, mask.report_metric) == (0.93, 0.91)
    assert "trained once from the pre-trained weights" in mask.training
    best, dense, random, absent = mask.arms
    assert (best.heads, best.neurons) == (4, 20)
    assert (dense.heads, dense.neurons) == (8, 40)
    assert (random.heads, random.neurons) == (4, 20)
    assert (absent.heads, absent.neurons, absent.note) == (None, None, "does not fit")


def test_masks_are_drawn_by_seed() -> None:
    drawn = PlannedArm("random", lambda seed: make_good_mask(seed))
    comparison = make_comparison(drawn, ABSENT)
    assert comparison.draw("random", 2).num_kept(UnitKind.HEAD) == 2
    assert comparison.draw("best", 2) == MASK
    assert comparison.draw("dense", 2) == Mask({kind: MASK[kind] | True for kind in UnitKind})
    with pytest.raises(ValueError, match="has no mask"):
        comparison.draw("inverted", 1)
