"""Speed never changes results: a compact model trains as the full-size one under its gates does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DataCollatorWithPadding

from distprune.core.compaction import compact
from distprune.core.gating import gate
from distprune.models.checkpoint import load_classifier, load_tokenizer
from distprune.tasks.prepared import PreparedTask
from distprune.trial.work import training
from tests.trial.studies import TinyStudy, keep
from tests.trial.work.test_training import open_task, run

TOLERANCE = 1e-4
"""Largest difference of a logit after eight steps of AdamW in float32."""
RECIPE = {"steps": 8, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def task(study: TinyStudy) -> PreparedTask:
    return open_task(study)


def load_without_dropout(study: TinyStudy) -> Any:
    """Random masks would differ between models of different size."""
    model = load_classifier(str(study.checkpoint), 2, seed=0)[0]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def predict(model: Any, study: TinyStudy, task: PreparedTask) -> Tensor:
    collate = DataCollatorWithPadding(load_tokenizer(str(study.checkpoint)))
    batch = collate([task.split("search")[row] for row in range(32)])
    batch.pop("labels")
    with torch.no_grad():
        logits: Tensor = model.eval()(**batch).logits
    return logits


@pytest.mark.parametrize("freeze", [(), ("embeddings",)])
def test_compact_training_is_gated_training(
    study: TinyStudy, task: PreparedTask, freeze: tuple[str, ...]
) -> None:
    mask = keep(5, 17)
    full = load_without_dropout(study)
    small = compact(copy.deepcopy(full), mask)
    before = predict(small, study, task)
    with gate(full, mask):
        run(full, study, task, freeze=freeze, **RECIPE)
        expected = predict(full, study, task)
    run(small, study, task, freeze=freeze, **RECIPE)
    assert torch.dist(before, expected, p=torch.inf) > 100 * TOLERANCE
    torch.testing.assert_close(predict(small, study, task), expected, rtol=0, atol=TOLERANCE)


def test_padding_to_a_bucket_is_padding_to_the_longest(
    study: TinyStudy, task: PreparedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model has as many positions as the task's longest example has tokens."""
    bucketed = run(load_without_dropout(study), study, task, **RECIPE)
    longest = DataCollatorWithPadding(
        load_tokenizer(str(study.checkpoint)), padding="max_length", max_length=16
    )
    monkeypatch.setattr(training, "make_collator", lambda checkpoint: longest)
    padded = run(load_without_dropout(study), study, task, **RECIPE)
    assert torch.dist(predict(bucketed, study, task), predict(padded, study, task)) < TOLERANCE


def test_fused_optimiser_is_the_plain_one(
    study: TinyStudy, task: PreparedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = run(load_without_dropout(study), study, task, **RECIPE)
    make = training._make_arguments

    def make_plain(*arguments: Any) -> Any:
        plain = make(*arguments)
        plain.optim = "adamw_torch"
        return plain

    monkeypatch.setattr(training, "_make_arguments", make_plain)
    plain = run(load_without_dropout(study), study, task, **RECIPE)
    assert torch.dist(predict(fused, study, task), predict(plain, study, task)) < TOLERANCE
