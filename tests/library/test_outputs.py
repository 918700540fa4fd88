"""Outputs in the store, and their metric on other draws of the examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distprune.errors import StageError
from distprune.library import outputs as module
from distprune.library.outputs import (
    OUTPUTS_FILE,
    Outputs,
    count_resamples,
    read_outputs,
    resample_outputs,
)
from distprune.store.key import content_key
from distprune.store.store import Store
from distprune.tasks.metrics import METRICS


def make_outputs(kind: str, count: int = 30) -> Outputs:
    generator = np.random.default_rng(0)
    if kind == "regression":
        labels = generator.normal(size=count)
        logits = labels[:, None] + generator.normal(size=(count, 1))
        return Outputs(logits.astype(np.float32), labels)
    labels = generator.integers(0, 3, count)
    logits = generator.normal(size=(count, 3)) + 2 * np.eye(3)[labels]
    return Outputs(logits.astype(np.float32), labels)


@pytest.mark.parametrize("name", METRICS)
def test_resampled_metric_is_the_metric_of_the_drawn_examples(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEAN_RESAMPLES", 20)
    monkeypatch.setattr(module, "OTHER_RESAMPLES", 20)
    metric = METRICS[name]
    outputs = make_outputs(metric.kind)
    resampled = resample_outputs(outputs, metric)
    assert resampled.observed == pytest.approx(metric.compute(outputs.logits, outputs.labels))
    rows = np.random.default_rng(module.EXAMPLE_SEED).integers(0, 30, (20, 30))
    expected = [metric.compute(outputs.logits[row], outputs.labels[row]) for row in rows]
    np.testing.assert_allclose(resampled.replicates, expected)


def test_means_are_drawn_more_often() -> None:
    assert count_resamples(METRICS["accuracy"]) > count_resamples(METRICS["f1"])
    resampled = resample_outputs(make_outputs("classification"), METRICS["accuracy"])
    assert len(resampled.replicates) == count_resamples(METRICS["accuracy"])


def test_outputs_are_read_from_the_store(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    store, key = Store(str(tmp_path)), content_key(["made up"])
    outputs = make_outputs("classification")
    arrays = {"logits": outputs.logits, "labels": outputs.labels}
    store.commit(key, lambda folder: save_file(arrays, folder / OUTPUTS_FILE), {})
    found = read_outputs(store, key)
    np.testing.assert_array_equal(found.logits, outputs.logits)
    np.testing.assert_array_equal(found.labels, outputs.labels)


def test_evaluation_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"not in .* any more"):
        read_outputs(Store(str(tmp_path)), content_key(["gone"]))
