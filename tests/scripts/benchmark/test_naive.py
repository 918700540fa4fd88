"""The hand-written script does the same work: same recipe, same scores, same masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from distprune.core.gating import gate
from distprune.core.importance import measure_importance
from distprune.core.importance_scores import (
    Criterion,
    Estimator,
    FloatArray,
    Importance,
    Normalisation,
    normalise,
)
from distprune.core.mask import Mask
from distprune.core.selection import SelectionRule, select
from distprune.core.units import UnitKind
from distprune.search.study_file import load_study
from scripts.benchmark import naive
from scripts.benchmark.configurations import TWELVE, fixed_study, write_study
from scripts.benchmark.settings import Settings
from tests.tiny_study import SHAPE

NAMES = {UnitKind.HEAD: "heads", UnitKind.NEURON: "neurons"}
SEPARATELY = SelectionRule(tuple(UnitKind))


def draw_scores(seed: int) -> dict[UnitKind, FloatArray]:
    generator = np.random.default_rng(seed)
    return {
        kind: generator.random((SHAPE.num_layers, SHAPE.units_per_layer(kind))) for kind in UnitKind
    }


def to_naive(arrays: Importance | Mask) -> dict[str, Tensor]:
    return {NAMES[kind]: torch.tensor(arrays[kind], dtype=torch.float64) for kind in UnitKind}


def test_recipes_are_those_of_the_study(tmp_path: Path) -> None:
    values = fixed_study(Settings(tmp_path), "twelve", tmp_path / "studies", TWELVE)
    spec = load_study(write_study(values, tmp_path / "study.yaml"), {}).base
    tuning, retraining = spec.fine_tuning, spec.retraining
    assert (tuning.epochs, tuning.learning_rate) == (naive.EPOCHS, naive.LEARNING_RATE)
    assert retraining.epochs == naive.RETRAINING_EPOCHS
    assert retraining.learning_rate == naive.RETRAINING_LEARNING_RATE
    for recipe in (tuning, retraining):
        assert (recipe.batch_size, recipe.schedule) == (naive.BATCH_SIZE, "linear")
        assert (recipe.warmup, recipe.weight_decay) == (naive.WARMUP, naive.WEIGHT_DECAY)
        assert (recipe.gradient_clip, recipe.freeze) == (naive.GRADIENT_CLIP, ("embeddings",))
    assert spec.task.max_length == naive.MAX_LENGTH


@pytest.mark.parametrize("seed", range(5))
def test_same_scores_give_the_same_masks(seed: int) -> None:
    scores = Importance(draw_scores(seed))
    before = select(Importance(draw_scores(seed + 9)), Mask.dense(SHAPE), SHAPE, 0.25, SEPARATELY)
    normalised = normalise(scores, before, Normalisation.L2)
    theirs = naive.normalise(to_naive(scores), to_naive(before))
    for kind, name in NAMES.items():
        np.testing.assert_allclose(theirs[name].numpy(), normalised[kind], rtol=1e-12)
    ours = select(normalised, before, SHAPE, 0.5, SEPARATELY)
    chosen = naive.select(theirs, to_naive(before), 0.5)
    for kind, name in NAMES.items():
        np.testing.assert_array_equal(chosen[name].numpy().astype(bool), ours[kind])


@pytest.fixture(name="model")
def load_model(body_checkpoint: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = AutoModelForSequenceClassification.from_pretrained(
        body_checkpoint, num_labels=2
    ).eval()
    return model


@pytest.fixture(name="batch")
def make_batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(4, 7, dtype=torch.long)
    mask[1, 4:] = 0
    return {
        "input_ids": torch.randint(5, 50, (4, 7), generator=generator),
        "attention_mask": mask,
        "labels": torch.tensor([0, 1, 1, 0]),
    }


def test_hooks_are_gates(model: torch.nn.Module, batch: dict[str, Tensor]) -> None:
    mask = select(Importance(draw_scores(1)), Mask.dense(SHAPE), SHAPE, 0.5, SEPARATELY)
    with torch.no_grad():
        with gate(model, mask):
            ours = model(**batch).logits
        gates = naive.Gates(model)
        gates.values = {name: list(rows.float()) for name, rows in to_naive(mask).items()}
        assert torch.allclose(model(**batch).logits, ours, atol=1e-6)
        gates.values = None
        assert not torch.allclose(model(**batch).logits, ours, atol=1e-4)


def test_same_importance(model: torch.nn.Module, batch: dict[str, Tensor]) -> None:
    def example_losses(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        logits = model(**inputs).logits
        return torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")

    ours = measure_importance(
        model, [batch], example_losses, Criterion.ABS_GRADIENT, Estimator.EXAMPLE
    )
    masks = naive.full_masks(model.config)
    theirs = naive.measure_importance(model, naive.Gates(model), masks, [batch])
    for kind, name in NAMES.items():
        np.testing.assert_allclose(theirs[name].numpy(), np.stack(ours[kind]), rtol=1e-4)
