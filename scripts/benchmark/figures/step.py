"""A training step of the compact model beside one of the dense model, on one thread."""

from __future__ import annotations

import torch

from scripts.benchmark.models import (
    DENSE,
    build_models,
    draw_batch,
    make_training_step,
    precisions,
)
from scripts.benchmark.results import Limit, Row, Values
from scripts.benchmark.settings import Settings
from scripts.benchmark.spread import divide, summarise
from scripts.benchmark.timing import run_apart, time_in_turn

BATCH = (32, 32)
"""Examples and tokens of each."""
LIMITS = {0.5: 0.62, 0.75: 0.42}
"""Sparsity of heads and neurons, and what its step may cost of a dense step."""


def measure(settings: Settings) -> Values:
    """Time steps in the arithmetic that `auto` chooses, and in float32."""
    rows, details = [], {}
    for precision in precisions():
        seconds = run_apart(time_steps, precision, settings.rounds)
        details[precision] = {f"{sparsity:g}": times for sparsity, times in seconds.items()}
        rows += [
            Row(
                f"training step at {sparsity * 100:g} % / dense step, {precision}, 1 thread",
                summarise(divide(seconds[sparsity], seconds[DENSE])),
                Limit("<=", limit),
            )
            for sparsity, limit in LIMITS.items()
        ]
        milliseconds = [1000 * value for value in seconds[DENSE]]
        rows.append(Row(f"dense step, {precision}, 1 thread, ms", summarise(milliseconds)))
    return Values(rows, {"batch": BATCH, "seconds": details})


def time_steps(precision: str, rounds: int) -> dict[float, list[float]]:
    """Return the seconds of each round's step, by sparsity."""
    torch.set_num_threads(1)
    models, _ = build_models((DENSE, *LIMITS))
    batch = draw_batch(*BATCH)
    steps = {
        f"{sparsity}": make_training_step(model, batch, precision)
        for sparsity, model in models.items()
    }
    return {float(name): times for name, times in time_in_turn(steps, rounds).items()}
