"""The demo model, dense and compact, with what a training step of it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from distprune.core.anatomy import describe_anatomy
from distprune.core.compaction import compact
from distprune.core.first_token import only_first_token
from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.selection import SelectionRule, select
from distprune.core.units import EncoderShape, UnitKind
from distprune.methods.spec import Recipe
from distprune.models.checkpoint import load_classifier
from distprune.trial.resolve import resolve_precision
from distprune.trial.spec import Precision
from distprune.trial.work.cpu_gradients import fast_cpu_gradients
from distprune.trial.work.inputs import autocast
from scripts.benchmark.configurations import QUICKSTART

CHECKPOINT = "demo:minilm"
NUM_LABELS = 2
DENSE = 0.0


def build_models(sparsities: tuple[float, ...]) -> tuple[dict[float, Any], dict[float, Mask]]:
    """Return the model at each sparsity, 0 = dense, and its mask.

    Units are drawn over the whole model, as a search selects them; so layers differ in width.
    """
    dense, _ = load_classifier(CHECKPOINT, NUM_LABELS, seed=0)
    shape = describe_anatomy(dense).shape()
    masks = {sparsity: draw_mask(shape, sparsity) for sparsity in sparsities}
    models = {sparsity: compact(dense, mask) for sparsity, mask in masks.items()}
    return models, masks


def draw_mask(shape: EncoderShape, sparsity: float) -> Mask:
    """Remove that share of the heads and of the neurons, at random over all layers."""
    generator = np.random.default_rng(0)
    importance = Importance(
        {
            kind: generator.random((shape.num_layers, shape.units_per_layer(kind)))
            for kind in UnitKind
        }
    )
    return select(importance, Mask.dense(shape), shape, sparsity, SelectionRule(tuple(UnitKind)))


def draw_batch(num_examples: int, num_tokens: int) -> dict[str, Tensor]:
    """Return random tokens without padding, and labels."""
    generator = torch.Generator().manual_seed(0)
    shape = (num_examples, num_tokens)
    return {
        "input_ids": torch.randint(1000, 20000, shape, generator=generator),
        "attention_mask": torch.ones(shape, dtype=torch.long),
        "token_type_ids": torch.zeros(shape, dtype=torch.long),
        "labels": torch.randint(0, NUM_LABELS, (num_examples,), generator=generator),
    }


def precisions() -> tuple[str, ...]:
    """Return the arithmetic that `auto` chooses here, and float32."""
    return tuple(dict.fromkeys((resolve_precision(Precision.AUTO, uses_gpu=False), "float32")))


@contextmanager
def computed_as_in_stages(model: Any) -> Iterator[None]:
    """Let a model compute inside the block as the stages let it."""
    with fast_cpu_gradients(model), only_first_token(model):
        yield


def make_training_step(
    model: Any, batch: Mapping[str, Tensor], precision: str
) -> Callable[[], None]:
    """Return a training step as the stages compute it; see `make_plain_step`."""
    step = make_plain_step(model, batch, precision)

    def compute_step() -> None:
        with computed_as_in_stages(model):
            step()

    return compute_step


def make_plain_step(model: Any, batch: Mapping[str, Tensor], precision: str) -> Callable[[], None]:
    """Return forward, backward, clipping, fused AdamW and zeroing, as the quickstart trains.

    Embeddings are frozen; `model` is modified.
    """
    trial = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))["trial"]
    recipe = Recipe.model_validate(trial["fine_tuning"])
    describe_anatomy(model).embeddings.requires_grad_(False)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        group_parameters(model, recipe.weight_decay), lr=recipe.learning_rate, fused=True
    )
    model.train()
    device = torch.device("cpu")

    def step() -> None:
        with autocast(device, precision):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.gradient_clip)
        optimiser.step()
        optimiser.zero_grad()

    return step


def group_parameters(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group parameters as transformers' Trainer does: biases and layer norms do not decay."""
    trained = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    decayed = [one for name, one in trained if one.ndim > 1]
    others = [one for name, one in trained if one.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
