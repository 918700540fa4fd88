"""Looks after each seed share one error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.bootstrap import Resampled, bootstrap_difference
from distprune.core.looks import ERROR, choose_confidence, list_looks


@pytest.mark.parametrize(
    ("num_seeds", "looks"),
    [(2, (2,)), (3, (3,)), (4, (3, 4)), (5, (3, 4, 5)), (8, (3, 4, 5, 6, 7, 8))],
)
def test_looks(num_seeds: int, looks: tuple[int, ...]) -> None:
    assert list_looks(num_seeds) == looks


@pytest.mark.parametrize("num_seeds", [-1, 0, 1])
def test_one_seed_is_no_look(num_seeds: int) -> None:
    with pytest.raises(ValueError, match="two at least"):
        list_looks(num_seeds)


@given(st.integers(2, 50))
def test_looks_share_the_error(num_seeds: int) -> None:
    looks = list_looks(num_seeds)
    assert looks[-1] == num_seeds
    assert len(looks) * (1 - choose_confidence(len(looks))) == pytest.approx(ERROR)


def test_equal_models_are_rarely_told_apart_by_looking_again_and_again() -> None:
    generator = np.random.default_rng(0)
    looks = list_looks(5)
    confidence = choose_confidence(len(looks))
    nothing = Resampled(0.0, np.zeros(2000))
    num_settled = 0
    for values in generator.normal(0.0, 1.0, (300, 5)):
        arm = [Resampled(value, np.full(2000, value)) for value in values]
        num_settled += any(
            bootstrap_difference(arm[:n], [nothing] * n, confidence, 0).excludes_zero for n in looks
        )
    assert num_settled / 300 <= ERROR + 0.03
