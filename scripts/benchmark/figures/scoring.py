"""Scoring all heads and neurons, one gradient an example, beside a training step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from distprune.core.importance import Batch, measure_importance
from distprune.core.importance_scores import Criterion, Estimator
from distprune.trial.work.inputs import autocast
from scripts.benchmark.models import (
    DENSE,
    build_models,
    computed_as_in_stages,
    draw_batch,
    make_training_step,
    precisions,
)
from scripts.benchmark.results import Limit, Row, Values
from scripts.benchmark.settings import Settings
from scripts.benchmark.spread import divide, summarise
from scripts.benchmark.timing import run_apart, time_in_turn

BATCH = (32, 32)
LIMIT = 1.0


def measure(settings: Settings) -> Values:
    """Time both on the same batch, in the arithmetic that `auto` chooses and in float32."""
    rows, details = [], {}
    for precision in precisions():
        details[precision] = seconds = run_apart(time_scoring, precision, settings.rounds)
        rows.append(
            Row(
                f"scoring a batch, per example / training step, {precision}, 1 thread",
                summarise(divide(seconds["scoring"], seconds["step"])),
                Limit("<=", LIMIT),
            )
        )
    return Values(rows, {"batch": BATCH, "seconds": details})


def time_scoring(precision: str, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round, scoring and training the dense model."""
    torch.set_num_threads(1)
    scored, trained = (build_models((DENSE,))[0][DENSE] for _ in range(2))
    batch = draw_batch(*BATCH)
    device = torch.device("cpu")

    def example_losses(model: nn.Module, batch: Batch) -> Tensor:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        with autocast(device, precision):
            logits: Tensor = model(**inputs).logits.float()
            return functional.cross_entropy(logits, batch["labels"], reduction="none")

    def score() -> None:
        with computed_as_in_stages(scored):
            measure_importance(
                scored, [batch], example_losses, Criterion.ABS_GRADIENT, Estimator.EXAMPLE
            )

    actions = {
        "scoring": score,
        "step": make_training_step(trained, batch, precision),
    }
    return time_in_turn(actions, rounds)
