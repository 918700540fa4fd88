import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.errors import ConfigError
from distprune.tasks.metrics import METRICS, constant_floor, resolve_metric

# Predictions 1 1 0 0 1 against labels 1 0 0 1 1: TP 2, FP 1, FN 1, TN 1.
LOGITS = np.asarray([[0, 1], [0, 1], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
LABELS = np.asarray([1, 0, 0, 1, 1])


@pytest.mark.parametrize(
    ("name", "expected"), [("accuracy", 3 / 5), ("f1", 2 / 3), ("matthews", 1 / 6)]
)
def test_classification_by_hand(name: str, expected: float) -> None:
    assert METRICS[name].compute(LOGITS, LABELS) == pytest.approx(expected)


def test_f1_of_three_classes_is_the_macro_average() -> None:
    logits = np.eye(3)[[0, 0, 1, 2]]
    # class 0: 2/3, class 1: 0 (label 2 was predicted as 1), class 2: 2/3
    assert METRICS["f1"].compute(logits, [0, 0, 2, 2]) == pytest.approx((1 + 0 + 2 / 3) / 3)


def test_f1_without_any_positive_is_zero() -> None:
    assert METRICS["f1"].compute([[1.0, 0.0]] * 3, [0, 0, 0]) == 0.0


def test_regression_by_hand() -> None:
    predictions, labels = [[1.0], [2.0], [4.0]], [1.0, 3.0, 2.0]
    # centred: (-4/3, -1/3, 5/3) and (-1, 1, 0) -> 1 / sqrt(14/3 * 2); ranks 1 2 3, 1 3 2 -> 1/2
    pearson = 1 / math.sqrt(14 / 3 * 2)
    assert METRICS["pearson_spearman"].compute(predictions, labels) == pytest.approx(
        (pearson + 0.5) / 2
    )
    assert METRICS["mean_squared_error"].compute(predictions, labels) == pytest.approx(5 / 3)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e30])
def test_correlation_of_a_constant_is_zero(constant: float) -> None:
    labels = [0.0, 1.0, 2.0]
    assert METRICS["pearson_spearman"].compute([[constant]] * 3, labels) == 0.0
    assert METRICS["pearson_spearman"].compute([[0.0], [1.0], [2.0]], [constant] * 3) == 0.0


def test_correlation_survives_huge_predictions() -> None:
    metric = METRICS["pearson_spearman"]
    assert metric.compute([[1e300], [2e300], [3e300]], [1.0, 2.0, 3.0]) == pytest.approx(1.0)


def test_squared_error_that_overflows_is_infinite() -> None:
    assert METRICS["mean_squared_error"].compute([[1e300]], [0.0]) == math.inf


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_logits_give_nan(name: str, bad: float) -> None:
    width = 1 if METRICS[name].kind == "regression" else 2
    logits = np.arange(4 * width, dtype=np.float32).reshape(4, width)
    logits[2, 0] = bad
    assert math.isnan(METRICS[name].compute(logits, [0, 1, 0, 1]))


@pytest.mark.parametrize(
    ("name", "logits", "labels"),
    [
        ("accuracy", np.zeros((3, 2)), np.zeros(2)),
        ("accuracy", np.zeros(3), np.zeros(3)),
        ("accuracy", np.zeros((0, 2)), np.zeros(0)),
        ("mean_squared_error", np.zeros((3, 2)), np.zeros(3)),
    ],
)
def test_refuses_shapes(name: str, logits: npt.ArrayLike, labels: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match="logits"):
        METRICS[name].compute(logits, labels)


def test_directions() -> None:
    lower = [metric.name for metric in METRICS.values() if not metric.higher_is_better]
    assert lower == ["mean_squared_error"]


def test_resolves_auto_by_kind() -> None:
    assert resolve_metric("auto", "classification").name == "accuracy"
    assert resolve_metric("auto", "regression").name == "pearson_spearman"
    assert resolve_metric("matthews", "classification") is METRICS["matthews"]


def test_resolve_refuses() -> None:
    with pytest.raises(ConfigError, match="'accuracy' scores classification and this task is regr"):
        resolve_metric("accuracy", "regression")
    with pytest.raises(ConfigError, match="'bleu' is unknown; for classification choose auto, acc"):
        resolve_metric("bleu", "classification")


def test_floor_of_the_majority_class_of_train() -> None:
    train, labels = [1, 1, 0], [0, 0, 1, 0]
    assert constant_floor(METRICS["accuracy"], train, labels) == 0.25
    assert constant_floor(METRICS["f1"], train, labels) == pytest.approx(2 / 5)
    assert constant_floor(METRICS["f1"], [0, 0, 1], labels) == pytest.approx(2 / 5)
    assert constant_floor(METRICS["matthews"], train, labels) == 0.0


def test_floor_of_equals_is_the_lowest_class() -> None:
    assert constant_floor(METRICS["accuracy"], [2, 1, 0, 1, 2], [1, 1, 2, 0]) == 0.5


def test_floor_of_regression_is_the_mean_of_train() -> None:
    train, labels = np.asarray([1.0, 3.0]), np.asarray([2.0, 4.0])
    assert constant_floor(METRICS["mean_squared_error"], train, labels) == 2.0
    assert constant_floor(METRICS["pearson_spearman"], train, labels) == 0.0


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30))
def test_perfect_predictions_reach_one(labels: list[int]) -> None:
    logits = np.eye(3)[labels]
    assert METRICS["accuracy"].compute(logits, labels) == 1.0
    assert METRICS["f1"].compute(logits, labels) == pytest.approx(1.0)
    expected = 1.0 if len(set(labels)) > 1 else 0.0
    assert METRICS["matthews"].compute(logits, labels) == pytest.approx(expected)
