"""The metrics by which models of a task are compared, and the floor under each of them.

A metric maps logits and labels to one number. Logits that are not finite give nan, never a number
that looks like a result. scikit-learn and scipy are imported when a metric is computed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distprune.errors import ConfigError

Array = npt.NDArray[Any]
TaskKind = Literal["classification", "regression"]
MetricName = Literal["accuracy", "f1", "matthews", "pearson_spearman", "mean_squared_error"]


@dataclass(frozen=True)
class Metric:
    """A way to score predictions.

    Attributes:
        name: its key in `METRICS`.
        higher_is_better: the direction of a better model.
        kind: the kind of task that it scores.
        score: the number for predictions [n] and labels [n], both finite; `num_classes` is 1 for
            regression.
    """

    name: MetricName
    higher_is_better: bool
    kind: TaskKind
    score: Callable[[Array, Array, int], float]

    def compute(self, logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
        """Score a model's logits.

        Args:
            logits: [n, k] floats, n >= 1; k classes, or k = 1 for regression.
            labels: [n] class indices in [0, k), or floats for regression.

        Returns:
            The metric, in the direction of `higher_is_better`; nan where a logit is not finite.

        Raises:
            ValueError: if the shapes do not fit each other.
        """
        logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
        if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.size == 0:
            raise ValueError(
                f"logits {logits.shape} and labels {labels.shape}: must be [n, k] and [n], n >= 1"
            )
        if self.kind == "regression" and logits.shape[1] != 1:
            raise ValueError(f"logits {logits.shape}: regression has one output per example")
        if not np.isfinite(logits).all():
            return float("nan")
        predictions = logits[:, 0] if self.kind == "regression" else logits.argmax(axis=1)
        return float(self.score(predictions, labels, logits.shape[1]))


def _score_accuracy(predictions: Array, labels: Array, num_classes: int) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def _score_f1(predictions: Array, labels: Array, num_classes: int) -> float:
    from sklearn.metrics import f1_score

    if num_classes == 2:
        return float(f1_score(labels == 1, predictions == 1, zero_division=0))
    return float(f1_score(labels, predictions, average="macro", zero_division=0))


def _score_matthews(predictions: Array, labels: Array, num_classes: int) -> float:
    from sklearn.metrics import matthews_corrcoef

    if _is_constant(predictions) or _is_constant(labels):  # sklearn warns where both are
        return 0.0
    return float(matthews_corrcoef(labels, predictions))


def _score_pearson_spearman(predictions: Array, labels: Array, num_classes: int) -> float:
    from scipy.stats import pearsonr, spearmanr

    # Correlations ignore scale; without this, huge but finite predictions would overflow.
    scaled = predictions / max(float(np.abs(predictions).max()), np.finfo(np.float64).tiny)
    if _is_constant(scaled) or _is_constant(labels):
        return 0.0
    pearson = pearsonr(scaled, labels).statistic
    spearman = spearmanr(scaled, labels).statistic
    return float((pearson + spearman) / 2)


def _score_mean_squared_error(predictions: Array, labels: Array, num_classes: int) -> float:
    with np.errstate(over="ignore"):  # an overflow is inf: not finite, so the trial diverged
        return float(np.square(predictions - labels.astype(np.float64)).mean())


def _is_constant(values: Array) -> bool:
    """Tell whether values differ by no more than rounding; scipy draws the line at 1e-13 too."""
    values = values.astype(np.float64)
    mean = values.mean()
    return bool(np.linalg.norm(values - mean) <= 1e-13 * abs(mean))


_TABLE = (
    Metric("accuracy", True, "classification", _score_accuracy),
    Metric("f1", True, "classification", _score_f1),
    Metric("matthews", True, "classification", _score_matthews),
    Metric("pearson_spearman", True, "regression", _score_pearson_spearman),
    Metric("mean_squared_error", False, "regression", _score_mean_squared_error),
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _TABLE})
"""All metrics by name.

`f1` is the F1 of class 1 where there are two classes, and the macro average where there are more.
`pearson_spearman` is the mean of both correlations, as for GLUE's STS-B; it is 0.0 where the
predictions or the labels are constant.
"""


def resolve_metric(name: str, kind: TaskKind) -> Metric:
    """Find the metric of a task.

    Args:
        name: a key of `METRICS`, or "auto": accuracy for classification, pearson_spearman for
            regression.
        kind: the kind of the task.

    Raises:
        ConfigError: if there is no such metric, or if it scores another kind of task.
    """
    if name == "auto":
        name = "accuracy" if kind == "classification" else "pearson_spearman"
    fitting = ", ".join(metric.name for metric in METRICS.values() if metric.kind == kind)
    if name not in METRICS:
        raise ConfigError(f"metric: {name!r} is unknown; for {kind} choose auto, {fitting}")
    metric = METRICS[name]
    if metric.kind != kind:
        raise ConfigError(
            f"metric: {name!r} scores {metric.kind} and this task is {kind}; "
            f"choose auto, {fitting}, or set kind"
        )
    return metric


def constant_floor(metric: Metric, train_labels: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Score the best model that ignores its input: the floor of retention.

    Args:
        metric: the metric of the task.
        train_labels: [m] labels that the constant is chosen on: the class that scores best as a
            constant (the lowest of equals), or the mean for regression.
        labels: [n] labels that it is scored on.

    Returns:
        The metric of the constant; 0.0 for matthews and pearson_spearman.
    """
    train_labels, labels = np.asarray(train_labels), np.asarray(labels)
    if metric.kind == "regression":
        constant = np.full((len(labels), 1), train_labels.mean(dtype=np.float64))
        return metric.compute(constant, labels)
    num_classes = max(2, int(train_labels.max()) + 1)
    scores = [
        metric.compute(_predict_class(index, num_classes, len(train_labels)), train_labels)
        for index in range(num_classes)
    ]
    best = int(np.argmax(scores if metric.higher_is_better else np.negative(scores)))
    return metric.compute(_predict_class(best, num_classes, len(labels)), labels)


def _predict_class(index: int, num_classes: int, num_examples: int) -> npt.NDArray[np.float64]:
    """Return the logits, [examples, classes], of a model that always says `index`."""
    logits = np.zeros((num_examples, num_classes))
    logits[:, index] = 1.0
    return logits
