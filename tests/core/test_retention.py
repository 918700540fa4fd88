"""Retention: 1 is as good as dense, 0 is the constant predictor, in both directions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.retention import Reference
from distprune.errors import DivergedTrialError

ACCURACY = Reference(dense=0.9, floor=0.5)
WORD_ERROR = Reference(dense=0.2, floor=1.0, higher_is_better=False)


@pytest.mark.parametrize(
    ("reference", "metric", "expected"),
    [
        (ACCURACY, 0.9, 1.0),
        (ACCURACY, 0.5, 0.0),
        (ACCURACY, 0.7, 0.5),
        (ACCURACY, 0.4, -0.25),
        (ACCURACY, 1.0, 1.25),
        (WORD_ERROR, 0.2, 1.0),
        (WORD_ERROR, 1.0, 0.0),
        (WORD_ERROR, 0.6, 0.5),
        (WORD_ERROR, 1.2, -0.25),
    ],
)
def test_retention_by_hand(reference: Reference, metric: float, expected: float) -> None:
    assert reference.retention(metric) == pytest.approx(expected)


@given(first=st.floats(0, 1), second=st.floats(0, 1))
def test_better_metric_retains_more(first: float, second: float) -> None:
    worse, better = sorted((first, second))
    assert ACCURACY.retention(worse) <= ACCURACY.retention(better)
    assert WORD_ERROR.retention(worse) >= WORD_ERROR.retention(better)


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
def test_metric_that_is_not_finite_stops_the_trial(metric: float) -> None:
    with pytest.raises(DivergedTrialError, match="is not finite"):
        ACCURACY.retention(metric)


@pytest.mark.parametrize(
    ("reference", "usable"),
    [
        (ACCURACY, True),
        (WORD_ERROR, True),
        (Reference(dense=0.5, floor=0.5), False),
        (Reference(dense=0.4, floor=0.5), False),
        (Reference(dense=1.1, floor=1.0, higher_is_better=False), False),
        (Reference(dense=math.nan, floor=0.5), False),
        (Reference(dense=0.9, floor=math.inf), False),
        (Reference(dense=0.9, floor=-math.inf), False),
    ],
)
def test_reference_is_usable_if_dense_beats_the_constant(
    reference: Reference, usable: bool
) -> None:
    assert reference.is_usable is usable
