"""What a model said about each example, and its metric on other draws of the examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distprune.core.bootstrap import (
    FloatArray,
    IndexArray,
    Resampled,
    resample_mean,
    resample_metric,
)
from distprune.errors import StageError
from distprune.store.store import Store
from distprune.tasks.metrics import Metric

OUTPUTS_FILE = "outputs.safetensors"
"""File of an `evaluate` stage: logits [example, output] and labels [example]."""

MEAN_RESAMPLES = 5000
"""Draws of the examples for a metric that is a mean over them."""

OTHER_RESAMPLES = 1000
"""Draws for other metrics, which are computed anew for each one."""

EXAMPLE_SEED = 0
"""Seed of the draws: the same for all models, so that each draw is of the same examples."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """The raw outputs of a model on one split.

    Attributes:
        logits: Floats [example, output].
        labels: Class numbers or floats [example].
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.generic]


def read_outputs(store: Store, key: str) -> Outputs:
    """Read the outputs that the evaluation `key` was made of.

    Raises:
        StageError: It is not in the store any more.
    """
    from safetensors.numpy import load_file

    entry = store.find(key)
    if entry is None:
        raise StageError(f"evaluation {key}: not in {store.root} any more; run it again")
    arrays = load_file(entry.path(OUTPUTS_FILE))
    return Outputs(arrays["logits"], arrays["labels"])


def count_resamples(metric: Metric) -> int:
    """Return how often the examples are drawn anew for a metric."""
    return MEAN_RESAMPLES if metric.name in _SCORES else OTHER_RESAMPLES


def resample_outputs(outputs: Outputs, metric: Metric) -> Resampled:
    """Return the metric of the outputs on all examples, and on each draw of them."""
    num_resamples = count_resamples(metric)
    if metric.name in _SCORES:
        scores = _SCORES[metric.name](outputs)
        return resample_mean(scores, num_resamples, EXAMPLE_SEED)

    def compute(rows: IndexArray) -> float:
        return metric.compute(outputs.logits[rows], outputs.labels[rows])

    return resample_metric(compute, len(outputs.labels), num_resamples, EXAMPLE_SEED)


def _score_hits(outputs: Outputs) -> FloatArray:
    hits: FloatArray = (outputs.logits.argmax(axis=1) == outputs.labels).astype(np.float64)
    return hits


def _score_squares(outputs: Outputs) -> FloatArray:
    errors: FloatArray = outputs.logits[:, 0].astype(np.float64) - outputs.labels.astype(np.float64)
    return errors**2


_SCORES = {"accuracy": _score_hits, "mean_squared_error": _score_squares}
"""What a metric is the mean of, by its name; the metrics that are not here are no means."""
