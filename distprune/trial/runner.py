"""One trial as a generator: it yields a result a level and never hears of Ray or of milestones."""

from __future__ import annotations

import time
from collections.abc import Iterator

from distprune.methods.registry import build_method
from distprune.methods.ticket import Ticket
from distprune.trial.results import LevelResult, Lineage
from distprune.trial.stages import TrialStages


def run_trial(stages: TrialStages) -> Iterator[LevelResult]:
    """Run a trial level by level; whoever iterates may stop after any level.

    Yields:
        Level 0, the dense fine-tuned model, then one result for each level of the schedule.

    Raises:
        DivergedTrialError: A metric or a score is not finite.
    """
    started = time.monotonic()
    method = build_method(stages.spec.pruning, stages)
    sparsities = stages.spec.pruning.sparsities

    ticket = stages.dense()
    yield _measure_level(stages, ticket, started)
    for sparsity in sparsities:
        started = time.monotonic()
        ticket = method.next_ticket(ticket, sparsity, is_last=sparsity == sparsities[-1])
        yield _measure_level(stages, ticket, started)


def _measure_level(stages: TrialStages, ticket: Ticket, started: float) -> LevelResult:
    evaluation = stages.evaluate(ticket)
    return LevelResult(
        level=ticket.level,
        sparsity=ticket.sparsity,
        packed_mask=ticket.mask.pack(),
        metric=evaluation.metric,
        lineage=Lineage(
            evaluation=evaluation.key,
            weights=ticket.weights.key,
            weights_file=ticket.weights.file,
            evidence=ticket.evidence,
        ),
        seconds=time.monotonic() - started,
        uses=stages.log.take(),
    )
