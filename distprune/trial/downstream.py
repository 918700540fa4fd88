"""Downstream training: a mask's ticket, controls of its size and the dense model, seed by seed.

One ticket is `stages.retrain(stages.rewind(point), mask)`, everywhere; so what one command has
trained, the next one finds in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from distprune.core.controls import (
    draw_inverted_mask,
    draw_random_mask,
    explain_no_inverted_mask,
)
from distprune.core.cost import EncoderCost, encoder_cost
from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.mask_algebra import describe_counts, describe_units
from distprune.core.retention import Reference
from distprune.core.selection import SelectionRule, select
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import ConfigError, MaskError
from distprune.methods.iterative import mix_sources
from distprune.methods.spec import PruningSpec
from distprune.methods.ticket import WeightsReference
from distprune.models.checkpoint import CheckpointFacts
from distprune.trial.stages import TrialStages

CONTINUE = "continue"
"""A rewinding setting: from the level before. Without levels that is the fine-tuned model."""


class TicketControl(StrEnum):
    """A mask that a ticket is compared with; it has as many heads and neurons.

    Those of importance are chosen at once on the task of the ticket; `distprune confirm` has the
    whole trial of a study choose them (`distprune.library.control_trials`).
    """

    RANDOM = "random"
    """Units drawn uniformly, anew for each seed."""
    INVERTED = "inverted"
    """Units drawn from those that the mask removes, where there are enough."""
    DENSE = "dense"
    """All units, trained as the ticket is: same start, same recipe."""
    LAMBDA_0 = "lambda_0"
    """The most important units by the fine-tuned model alone, chosen at once on this task."""
    LAMBDA_1 = "lambda_1"
    """The most important units by the pre-trained model alone, chosen at once."""
    MAGNITUDE = "magnitude"
    """The units of the largest weights in the fine-tuned model, chosen at once."""


ONE_SHOT: dict[TicketControl, dict[str, Any]] = {
    TicketControl.LAMBDA_0: {"mixing": {"coefficient": 0.0}},
    TicketControl.LAMBDA_1: {"mixing": {"coefficient": 1.0}},
    TicketControl.MAGNITUDE: {
        "mixing": {"coefficient": 0.0},
        "importance": {"criterion": "magnitude"},
    },
}
"""Pruning settings of the controls that are chosen by importance."""


@dataclass(frozen=True)
class TrainedTicket:
    """A mask, the weights that were trained under it with one seed, and what they are worth.

    Attributes:
        seed: Seed of the replicate.
        packed_mask: `mask` as text.
        weights: The trained weights in the store.
        metrics: The task's metric by split.
        evaluations: Keys of the evaluations by split; their entries hold logits and labels.
    """

    seed: int
    packed_mask: str
    weights: WeightsReference
    metrics: dict[str, float]
    evaluations: dict[str, str]

    @property
    def mask(self) -> Mask:
        """The units that are kept."""
        return Mask.unpack(self.packed_mask)


@dataclass(frozen=True)
class Arm:
    """The tickets of one kind, one for each seed.

    Attributes:
        name: `ticket`, the name of a control, or `dense fine-tuned`.
        tickets: One a seed; fewer where a control cannot be drawn.
        cost: Parameters and MACs of its encoder.
        retentions: On the report split, against the dense model of the same seed; empty where
            that is no better than a constant prediction.
    """

    name: str
    tickets: tuple[TrainedTicket, ...]
    cost: EncoderCost
    retentions: tuple[float, ...]

    def metrics(self, split: str) -> list[float]:
        """Return the metric on a split, seed by seed."""
        return [ticket.metrics[split] for ticket in self.tickets]


TICKET = "ticket"
DENSE = "dense fine-tuned"
"""Names of the arms that are always there."""

Notify = Callable[[str], None]
"""Hears what has been trained."""


def train_downstream(
    stages: TrialStages,
    mask: Mask,
    rewinding: float,
    seeds: Sequence[int],
    controls: Sequence[TicketControl] = (),
    notify: Notify = lambda text: None,
) -> tuple[Arm, ...]:
    """Train a mask's ticket and its controls with each seed, and compare them with the dense model.

    Args:
        stages: Stages of the task; the seed of their settings is replaced.
        mask: The mask; made for the checkpoint's counts.
        rewinding: Fraction of the dense fine-tuning that training starts from, in [0, 1].
        seeds: Seeds of the replicates.
        controls: What to compare with beside the dense model.
        notify: Hears of each model that is done.

    Returns:
        The ticket, the controls that can be drawn, and the dense model as fine-tuned.

    Raises:
        DivergedTrialError: A metric is not finite.
    """
    trained: dict[str, list[TrainedTicket]] = {}

    def add(name: str, ticket: TrainedTicket) -> None:
        trained.setdefault(name, []).append(ticket)
        notify(f"seed {ticket.seed}: {name} {ticket.metrics['report']:.4f} on report")

    for seed in seeds:
        replicate = at_seed(stages, seed)
        dense = measure_dense(replicate)
        add(TICKET, train_ticket(replicate, mask, rewinding))
        for control in controls:
            drawn = choose_control(control, mask, replicate)
            if drawn is None:
                notify(f"{control}: cannot be drawn; {explain_no_inverted_mask(mask)}")
            else:
                add(control, train_ticket(replicate, drawn, rewinding))
        add(DENSE, dense)
    dense_of = {ticket.seed: ticket for ticket in trained[DENSE]}
    return tuple(make_arm(stages, name, tickets, dense_of) for name, tickets in trained.items())


def make_arm(
    stages: TrialStages,
    name: str,
    tickets: Sequence[TrainedTicket],
    dense: dict[int, TrainedTicket],
) -> Arm:
    """Put the tickets of one kind together, given the dense model of each seed."""
    task = stages.context.task
    retentions = []
    for ticket in tickets:
        reference = Reference(
            dense[ticket.seed].metrics["report"], task.floors["report"], task.higher_is_better
        )
        if reference.is_usable:
            retentions.append(reference.retention(ticket.metrics["report"]))
    cost = encoder_cost(stages.shape, tickets[0].mask, stages.num_tokens)
    is_whole = len(retentions) == len(tickets)
    return Arm(name, tuple(tickets), cost, tuple(retentions) if is_whole else ())


def at_seed(stages: TrialStages, seed: int) -> TrialStages:
    """Return the stages of another replicate."""
    spec = stages.spec.model_copy(update={"seed": seed})
    return replace(stages, spec=spec)


def train_ticket(
    stages: TrialStages,
    mask: Mask,
    rewinding: float,
    splits: Sequence[str] = ("search", "report"),
) -> TrainedTicket:
    """Train the ticket of `mask` from a rewinding point, and evaluate it."""
    weights = stages.retrain(stages.rewind(rewinding), mask)
    return _evaluate(stages, weights, mask, splits)


def measure_dense(
    stages: TrialStages, splits: Sequence[str] = ("search", "report")
) -> TrainedTicket:
    """Fine-tune the dense model and evaluate it."""
    ticket = stages.dense()
    return _evaluate(stages, ticket.weights, ticket.mask, splits)


def _evaluate(
    stages: TrialStages, weights: WeightsReference, mask: Mask, splits: Sequence[str]
) -> TrainedTicket:
    evaluations = {split: stages.evaluate_weights(weights, mask, split) for split in splits}
    return TrainedTicket(
        seed=stages.spec.seed,
        packed_mask=mask.pack(),
        weights=weights,
        metrics={split: evaluation.metric for split, evaluation in evaluations.items()},
        evaluations={split: evaluation.key for split, evaluation in evaluations.items()},
    )


def choose_control(control: TicketControl, mask: Mask, stages: TrialStages) -> Mask | None:
    """Return a control's mask for the seed of `stages`; None where it cannot be drawn."""
    if control is TicketControl.RANDOM:
        return draw_random_mask(mask, stages.spec.seed)
    if control is TicketControl.INVERTED:
        return draw_inverted_mask(mask, stages.spec.seed)
    if control is TicketControl.DENSE:
        return Mask.dense(stages.shape)
    return _choose_by_importance(PruningSpec.model_validate(ONE_SHOT[control]), mask, stages)


def _choose_by_importance(pruning: PruningSpec, mask: Mask, stages: TrialStages) -> Mask:
    scoring = replace(stages, spec=stages.spec.model_copy(update={"pruning": pruning}))
    dense = scoring.dense()
    needs_pretrained, needs_finetuned = pruning.sources
    pretrained = scoring.score_pretrained(dense.mask).importance if needs_pretrained else None
    finetuned = scoring.score_finetuned(dense).importance if needs_finetuned else None
    importance = mix_sources(pruning, pretrained, finetuned, dense.mask)
    return keep_as_many(importance, mask, stages.shape)


def keep_as_many(importance: Importance, mask: Mask, shape: EncoderShape) -> Mask:
    """Keep the most important units, as many heads and as many neurons as `mask`."""
    chosen = Mask.dense(shape)
    for kind in UnitKind:
        rule = SelectionRule((kind,))
        chosen = select(importance, chosen, shape, mask.sparsity(kind), rule)
    return chosen


def check_mask(mask: Mask, checkpoint: CheckpointFacts, name: str = "mask") -> None:
    """Check that a mask was made for the counts of a checkpoint.

    Raises:
        MaskError: It was not; the message has both.
    """
    if mask.matches(checkpoint.shape):
        return
    shape = checkpoint.shape
    has = describe_counts(shape.num_layers, shape.num_heads, shape.num_neurons)
    raise MaskError(
        f"{name}: was made for {describe_units(mask)}, and checkpoint {checkpoint.name!r} has "
        f"{has}; use a mask on a checkpoint of the same counts"
    )


def find_rewinding(mask: Mask) -> float:
    """Return the rewinding point of the trial that found a mask; 0.0 if the mask names none.

    Raises:
        ConfigError: The mask's metadata names something that is no rewinding point.
    """
    named = mask.metadata.get("rewinding", 0.0)
    return parse_rewinding(named, "rewinding in the mask's metadata")


def parse_rewinding(value: Any, name: str = "--rewinding") -> float:
    """Return a rewinding point as a number; `continue` is 1.0, the fine-tuned model.

    Raises:
        ConfigError: It is neither `continue` nor in [0, 1].
    """
    if value == CONTINUE:
        return 1.0
    try:
        point = float(value)
    except (TypeError, ValueError):
        point = -1.0
    if not 0.0 <= point <= 1.0:
        raise ConfigError(
            f"{name}: {value!r}; it must be from 0 (pre-trained weights) to 1 (fine-tuned "
            f"weights), or {CONTINUE!r}; give it with --rewinding"
        )
    return point


def find_checkpoint(mask: Mask) -> str | None:
    """Return the name of the checkpoint that a mask was found on; None if it does not say."""
    checkpoint = mask.metadata.get("checkpoint")
    name = checkpoint.get("name") if isinstance(checkpoint, dict) else checkpoint
    return name if isinstance(name, str) and name else None
