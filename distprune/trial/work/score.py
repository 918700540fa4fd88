"""Stage `score`: the raw importance of every unit of a model under a mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from distprune.core.compaction import compact
from distprune.core.first_token import only_first_token
from distprune.core.importance import (
    Batch,
    measure_importance,
    measure_magnitude,
    scatter_importance,
)
from distprune.core.importance_scores import Criterion, Estimator, FloatArray, Importance
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.models.checkpoint import load_masked_language_model, load_tokenizer
from distprune.store.store import Store
from distprune.tasks.prepared import PreparedTask
from distprune.trial.request import StageRequest
from distprune.trial.stages import IMPORTANCE_FILE
from distprune.trial.work.batches import iterate_batches
from distprune.trial.work.cpu_gradients import fast_cpu_gradients
from distprune.trial.work.even_widths import even_widths
from distprune.trial.work.inputs import autocast, find_device, load_input_model, open_task
from distprune.trial.work.masked_language import IGNORED_LABEL, mask_tokens
from distprune.trial.work.weights import load_head


def work(request: StageRequest, store: Store, folder: Path) -> None:
    """Write the importance in the coordinates of the dense model."""
    from safetensors.numpy import save_file

    importance = _measure(request, store)
    save_file({str(kind): importance[kind].copy() for kind in UnitKind}, folder / IMPORTANCE_FILE)


def _measure(request: StageRequest, store: Store) -> Importance:
    settings = request.settings
    mask = Mask.unpack(settings["mask"])
    criterion = Criterion(settings["criterion"])
    if criterion is Criterion.RANDOM:
        generator = np.random.default_rng(request.seed)
        return Importance({kind: generator.random(mask[kind].shape) for kind in UnitKind})
    device = find_device()
    model = _load_model(request, store, mask).to(device)
    if criterion is Criterion.MAGNITUDE:
        return scatter_importance(measure_magnitude(model), mask)
    task = open_task(request, store)
    is_regression = task.facts.kind == "regression"
    losses = _masked_language_losses if settings["objective"] == "mlm" else _task_losses

    def example_losses(model: nn.Module, batch: Batch) -> Tensor:
        with autocast(device, settings["precision"]):
            return losses(model, batch, is_regression)

    estimator = Estimator(settings["estimator"])
    # A gate of each token needs each token, and masked words are anywhere.
    is_cut = settings["objective"] != "mlm" and estimator is not Estimator.TOKEN
    with (
        fast_cpu_gradients(model),
        only_first_token(model) if is_cut else nullcontext(),
        even_widths(model, mask),
    ):
        measured = measure_importance(
            model, _iterate_inputs(request, task, device), example_losses, criterion, estimator
        )
    return scatter_importance(_leave_out_added(measured, mask), mask)


def _leave_out_added(
    measured: Mapping[UnitKind, list[FloatArray]], mask: Mask
) -> dict[UnitKind, list[FloatArray]]:
    """Leave out what `even_widths` has added behind the units of each layer."""
    return {
        kind: [
            scores[:count] for scores, count in zip(measured[kind], mask[kind].sum(1), strict=True)
        ]
        for kind in UnitKind
    }


def _load_model(request: StageRequest, store: Store, mask: Mask) -> nn.Module:
    if request.settings["objective"] == "mlm":
        return compact(load_masked_language_model(request.places["checkpoint"]), mask)
    model: nn.Module = load_input_model(request, store, "weights", mask)
    if "head" in request.inputs:
        load_head(model, store, request.inputs["head"], request.settings["head_file"])
    return model


def _iterate_inputs(
    request: StageRequest, task: PreparedTask, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Yield the sampled training examples; for masked language modelling, each draw of them."""
    settings = request.settings
    dataset = task.split("train")
    sample = sample_rows(len(dataset), settings["examples"], settings["seed"])
    checkpoint = request.places["checkpoint"]
    is_mlm = settings["objective"] == "mlm"
    tokenizer = load_tokenizer(checkpoint) if is_mlm else None
    for draw in range(settings.get("mlm_draws", 1)):
        for rows, batch in iterate_batches(
            dataset, sample, settings["batch_size"], checkpoint, device
        ):
            if tokenizer is not None:
                yield mask_tokens(
                    batch, rows, tokenizer, settings["mlm_probability"], settings["seed"], draw
                )
            else:
                yield batch


def sample_rows(num_rows: int, num_sampled: int, seed: int) -> list[int]:
    """Choose rows without replacement; a larger sample contains a smaller one."""
    order = np.random.default_rng(seed).permutation(num_rows)
    return [int(row) for row in order[:num_sampled]]


def _task_losses(model: nn.Module, batch: Batch, is_regression: bool) -> Tensor:
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits: Tensor = model(**inputs).logits.float()
    if is_regression:
        return (logits.squeeze(-1) - batch["labels"]).square()
    return functional.cross_entropy(logits, batch["labels"], reduction="none")


def _masked_language_losses(model: nn.Module, batch: Batch, is_regression: bool) -> Tensor:
    """Average the loss over each example's own masked tokens, so that examples weigh the same."""
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs).logits
    chosen = batch["labels"] != IGNORED_LABEL
    losses = functional.cross_entropy(
        logits[chosen].float(), batch["labels"][chosen], reduction="none"
    )
    rows = chosen.nonzero()[:, 0]
    totals = torch.zeros(len(chosen), device=losses.device).index_add(0, rows, losses)
    return totals / chosen.sum(1).clamp(min=1)
