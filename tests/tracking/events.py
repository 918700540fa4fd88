"""Small histories, made up: the events of trials on an encoder of 3 layers, 4 heads, 8 neurons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from distprune.core.mask import Mask
from distprune.core.retention import Reference
from distprune.core.units import EncoderShape, UnitKind
from distprune.library.history import (
    Event,
    MilestoneReached,
    Outcome,
    TrialEnded,
    TrialStarted,
)
from distprune.methods.ticket import Evidence
from distprune.trial.reporter import Objective, report_milestones
from distprune.trial.results import LevelResult, Lineage
from distprune.trial.spec import TrialSpec

SHAPE = EncoderShape(num_layers=3, num_heads=4, num_neurons=8, hidden_size=8, head_size=2)
MILESTONES = (0.25, 0.5)
REFERENCE = Reference(dense=0.9, floor=0.5)
BEGIN = 1_700_000_000.0


def make_spec(**pruning: Any) -> dict[str, Any]:
    """Return a trial specification as the history holds it."""
    schedule = {"shape": "linear", "levels": 2}
    spec = TrialSpec.model_validate(
        {
            "checkpoint": "demo:minilm",
            "task": {"dataset": "demo:movies"},
            "pruning": {"target_sparsity": 0.5, "schedule": schedule, **pruning},
        }
    )
    return spec.model_dump(mode="json")


def start_trial(number: int = 0, **pruning: Any) -> TrialStarted:
    """Return the first event of a trial."""
    searched = {f"pruning.{name}": value for name, value in pruning.items()}
    searched["pruning.mixing.coefficient"] = 0.25
    return TrialStarted(number, BEGIN + number, make_spec(**pruning), searched, number)


def make_mask(sparsity: float) -> Mask:
    """Keep the first units of every layer."""
    return Mask(
        {
            kind: np.tile(
                np.arange(SHAPE.units_per_layer(kind))
                < round(SHAPE.units_per_layer(kind) * (1 - sparsity)),
                (SHAPE.num_layers, 1),
            )
            for kind in UnitKind
        }
    )


def make_level(level: int, sparsity: float, metric: float, **evidence: str) -> LevelResult:
    """Return a level whose numbers are given; it took `level` seconds."""
    lineage = Lineage("e" * 64, "d" * 64, "weights.safetensors", Evidence(**evidence))
    return LevelResult(level, sparsity, make_mask(sparsity).pack(), metric, lineage, float(level))


LEVELS = (make_level(0, 0.0, 0.9), make_level(1, 0.25, 0.8), make_level(2, 0.5, 0.7))


def run_trial(
    number: int = 0,
    outcome: Outcome | None = Outcome.COMPLETED,
    levels: Iterable[LevelResult] = LEVELS,
    message: str = "",
    reference: Reference = REFERENCE,
) -> Iterator[Event]:
    """Yield all events of a trial; without outcome it still runs."""
    yield start_trial(number)
    time = BEGIN + number + 10.0
    for report in report_milestones(levels, MILESTONES, reference, Objective.CURVE):
        yield MilestoneReached(number, time, report)
        time += 10.0
    if outcome is not None:
        yield TrialEnded(number, time, outcome, message)
