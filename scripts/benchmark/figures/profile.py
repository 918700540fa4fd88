"""Where the time of a training step goes: as torch and transformers compute it, and as we do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from scripts.benchmark.models import (
    build_models,
    computed_as_in_stages,
    draw_batch,
    make_plain_step,
    precisions,
)
from scripts.benchmark.results import Row, Values
from scripts.benchmark.settings import Settings
from scripts.benchmark.spread import summarise
from scripts.benchmark.timing import WARM_UP_ROUNDS, run_apart

SPARSITY = 0.5
BATCH = (32, 32)
PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "drawing dropout": ("aten::bernoulli_", "aten::random_", "aten::ge"),
    "conversions and copies": ("aten::copy_",),
    "optimiser and clipping": ("aten::_fused_adamw_", "aten::linalg_vector_norm"),
}
"""Operations by what they are for; what is not named is the rest."""

REST = "the rest"


def measure(settings: Settings) -> Values:
    """Profile both, in the arithmetic that `auto` chooses, with one thread."""
    precision = precisions()[0]
    rows, details = [], {}
    for name in ("plain", "ours"):
        details[name] = milliseconds = run_apart(
            profile_step, name == "ours", precision, settings.rounds
        )
        rows += [
            Row(f"step at {SPARSITY:.0%}, {precision}, {name}: {part}, ms", summarise([value]))
            for part, value in milliseconds.items()
        ]
    return Values(rows, details)


def profile_step(is_ours: bool, precision: str, rounds: int) -> dict[str, float]:
    """Return the milliseconds of a step by part."""
    torch.set_num_threads(1)
    model = build_models((SPARSITY,))[0][SPARSITY]
    batch = draw_batch(*BATCH)
    batch["attention_mask"][1:, -4:] = 0  # as in real batches, most examples are shorter
    step = make_plain_step(model, batch, precision)
    with computed_as_in_stages(model) if is_ours else nullcontext():
        for _ in range(WARM_UP_ROUNDS):
            step()
        return profile_rounds(step, rounds)


def profile_rounds(step: Callable[[], None], rounds: int) -> dict[str, float]:
    """Return the milliseconds of one round by part."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(rounds):
            step()
    events: Any = profiler.key_averages()
    times = {event.key: event.self_cpu_time_total / 1000 / rounds for event in events}
    parts = {part: sum(times.pop(key, 0.0) for key in keys) for part, keys in PARTS.items()}
    return {**parts, REST: sum(times.values())}
