"""The surroundings of a method in memory: scores are given, calls are written down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.units import EncoderShape, UnitKind
from distprune.methods.registry import build_method
from distprune.methods.spec import PretrainedObjective, PruningSpec
from distprune.methods.ticket import MeasuredImportance, Ticket, WeightsReference

SHAPE = EncoderShape(num_layers=2, num_heads=5, num_neurons=10, hidden_size=20, head_size=4)
FINE_TUNED = WeightsReference("dense", "1.0")


def make_importance(seed: int, shape: EncoderShape = SHAPE) -> Importance:
    """Draw scores of different units, all positive."""
    generator = np.random.default_rng(seed)
    return Importance(
        {
            kind: generator.random((shape.num_layers, shape.units_per_layer(kind))) + 0.1
            for kind in UnitKind
        }
    )


@dataclass
class FakeStages:
    """Implements `distprune.methods.stages.Stages`; `calls` is what it was asked for, in order."""

    pretrained: Importance = field(default_factory=lambda: make_importance(1))
    finetuned: Importance = field(default_factory=lambda: make_importance(2))
    shape: EncoderShape = SHAPE
    num_tokens: float = 16.0
    pretrained_objective: PretrainedObjective = PretrainedObjective.MLM
    calls: list[str] = field(default_factory=list)
    pretrained_masks: list[Mask] = field(default_factory=list)
    retrained_masks: list[Mask] = field(default_factory=list)

    def score_pretrained(self, mask: Mask) -> MeasuredImportance:
        self.calls.append("score pretrained")
        self.pretrained_masks.append(mask)
        return MeasuredImportance(self.pretrained, "pretrained-score")

    def score_finetuned(self, ticket: Ticket) -> MeasuredImportance:
        self.calls.append(f"score {name_weights(ticket.weights)}")
        return MeasuredImportance(self.finetuned, "finetuned-score")

    def rewind(self, point: float) -> WeightsReference:
        return WeightsReference("dense", str(point))

    def retrain(self, start: WeightsReference, mask: Mask) -> WeightsReference:
        self.calls.append(f"retrain {name_weights(start)}")
        self.retrained_masks.append(mask)
        return WeightsReference("retrained", str(len(self.retrained_masks)))


def name_weights(weights: WeightsReference) -> str:
    return f"{weights.key} {weights.file}"


def make_spec(**settings: Any) -> PruningSpec:
    """Settings of three levels, unless `settings` say otherwise."""
    return PruningSpec.model_validate({"schedule": {"levels": 3}} | settings)


def run_levels(spec: PruningSpec, stages: FakeStages) -> list[Ticket]:
    """Walk all levels of the schedule, level 0 first."""
    method = build_method(spec, stages)
    tickets = [Ticket(0, 0.0, Mask.dense(stages.shape), FINE_TUNED)]
    for sparsity in spec.sparsities:
        is_last = sparsity == spec.sparsities[-1]
        tickets.append(method.next_ticket(tickets[-1], sparsity, is_last))
    return tickets
