"""One trial as a generator: it yields a result a level and never hears of Ray or of milestones."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from itertools import islice

from distprune.errors import LostInputError
from distprune.methods.registry import build_method
from distprune.methods.ticket import Ticket
from distprune.trial.results import LevelResult, Lineage
from distprune.trial.stages import TrialStages

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a trial goes its way, where the store loses what it was given."""


def run_trial(stages: TrialStages) -> Iterator[LevelResult]:
    """Run a trial level by level; whoever iterates may stop after any level.

    Where the store has lost what a stage reads, the trial goes its way again from the beginning:
    stages that are stored are not computed again, and the one that is missing is.

    Yields:
        Level 0, the dense fine-tuned model, then one result for each level of the schedule.

    Raises:
        DivergedTrialError: A metric or a score is not finite.
        LostInputError: The store loses what it is given, again and again.
    """
    num_done = 0
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            for result in islice(_walk(stages), num_done, None):
                num_done += 1
                yield result
            return
        except LostInputError as error:
            if not attempts_left:
                raise
            logger.warning("%s; the trial makes it again", error)
            stages.prepare_again()


def _walk(stages: TrialStages) -> Iterator[LevelResult]:
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
