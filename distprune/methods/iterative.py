"""One level of iterative pruning: score, mix, select; rewind; retrain.

Achlatis 2021 (NTUA thesis), "Iterative Structural Pruning"; its text is not public, so this is our
reconstruction. With λ = 0 and without retraining it is the head pruning of Michel et al. 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

from distprune.core.importance_scores import Criterion, Importance, Normalisation
from distprune.core.mask import Mask
from distprune.core.mixing import MixingOperator, mix
from distprune.core.selection import select
from distprune.methods.spec import PruningSpec, Retraining
from distprune.methods.stages import Stages
from distprune.methods.ticket import Evidence, MeasuredImportance, Ticket, WeightsReference


@dataclass(frozen=True)
class IterativePruning:
    """Turns a ticket into the next one, as its settings say."""

    spec: PruningSpec
    stages: Stages

    def next_ticket(self, ticket: Ticket, sparsity: float, is_last: bool) -> Ticket:
        """Prune `ticket` to `sparsity` and train it again where the settings ask for it."""
        pretrained, finetuned = self._measure(ticket)
        importance = mix_sources(
            self.spec,
            pretrained.importance if pretrained else None,
            finetuned.importance if finetuned else None,
            ticket.mask,
        )
        rule = self.spec.selection_rule(self.stages.num_tokens)
        mask = select(importance, ticket.mask, self.stages.shape, sparsity, rule)
        return Ticket(
            level=ticket.level + 1,
            sparsity=sparsity,
            mask=mask,
            weights=self._train(ticket, mask, is_last),
            evidence=self._evidence(pretrained, finetuned),
        )

    def _measure(
        self, ticket: Ticket
    ) -> tuple[MeasuredImportance | None, MeasuredImportance | None]:
        needs_pretrained, needs_finetuned = self.spec.sources
        is_static = self.spec.importance.pretrained_mask == "static"
        live = Mask.dense(self.stages.shape) if is_static else ticket.mask
        return (
            self.stages.score_pretrained(live) if needs_pretrained else None,
            self.stages.score_finetuned(ticket) if needs_finetuned else None,
        )

    def _train(self, ticket: Ticket, mask: Mask, is_last: bool) -> WeightsReference:
        when = self.spec.retraining
        if when is Retraining.NEVER or (when is Retraining.LAST_LEVEL and not is_last):
            return ticket.weights
        rewinding = self.spec.rewinding
        start = ticket.weights if rewinding == "continue" else self.stages.rewind(rewinding)
        return self.stages.retrain(start, mask)

    def _evidence(
        self, pretrained: MeasuredImportance | None, finetuned: MeasuredImportance | None
    ) -> Evidence:
        return Evidence(
            pretrained_key=pretrained.key if pretrained else None,
            finetuned_key=finetuned.key if finetuned else None,
            pretrained_objective=self._objective() if pretrained else None,
        )

    def _objective(self) -> str | None:
        needs_data = self.spec.importance.criterion.needs_data
        return str(self.stages.pretrained_objective) if needs_data else None


def mix_sources(
    spec: PruningSpec, pretrained: Importance | None, finetuned: Importance | None, mask: Mask
) -> Importance:
    """Mix the raw importances that `spec.sources` asks for, over the live units of `mask`.

    Random scores are taken as they are: a layer's norm would favour layers with few live units.
    """
    if spec.importance.criterion is Criterion.RANDOM:
        return mix(None, finetuned, mask, MixingOperator.FINETUNED, 0.0, Normalisation.NONE)
    return mix(
        pretrained,
        finetuned,
        mask,
        spec.mixing.operator,
        spec.mixing.coefficient,
        spec.importance.normalisation,
    )
