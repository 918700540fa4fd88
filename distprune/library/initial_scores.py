"""Initial scores: the two importances of a dense model before anything is removed, level 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distprune.core.importance_scores import Criterion, Importance
from distprune.core.mask import Mask
from distprune.core.mixing import MixingOperator, mix
from distprune.core.units import UnitKind
from distprune.errors import CheckpointError
from distprune.methods.spec import PruningSpec
from distprune.trial.stages import TrialStages


@dataclass(frozen=True)
class InitialScores:
    """The raw importances of one replicate.

    Attributes:
        seed: Seed of the replicate.
        pretrained: Of the pre-trained model.
        finetuned: Of the dense fine-tuned model.
    """

    seed: int
    pretrained: Importance
    finetuned: Importance

    @property
    def dense_mask(self) -> Mask:
        """The mask that keeps every unit."""
        scores = self.finetuned.scores
        return Mask({kind: np.ones(scores[kind].shape, dtype=np.bool_) for kind in UnitKind})

    def mix(self, spec: PruningSpec, coefficient: float) -> Importance:
        """Mix them convexly with λ = `coefficient`, normalised as `spec` says."""
        return mix(
            self.pretrained,
            self.finetuned,
            self.dense_mask,
            MixingOperator.CONVEX,
            coefficient,
            spec.importance.normalisation,
        )


def explain_no_scores(stages: TrialStages) -> str | None:
    """Say why a trial's settings have no two importances to compare; None: they have."""
    if stages.spec.pruning.importance.criterion is Criterion.RANDOM:
        return "the scores of its trial are random"
    if not stages.spec.pruning.importance.criterion.needs_data:
        return None
    try:
        _ = stages.pretrained_objective
    except CheckpointError as error:
        return str(error)
    return None


def measure_scores(stages: TrialStages) -> InitialScores:
    """Measure both importances of the dense model.

    Raises:
        DivergedTrialError: The dense model has diverged.
    """
    dense = stages.dense()
    return InitialScores(
        seed=stages.spec.seed,
        pretrained=stages.score_pretrained(dense.mask).importance,
        finetuned=stages.score_finetuned(dense).importance,
    )


def name_objective(stages: TrialStages) -> str:
    """Return what the pre-trained importance of a trial is measured with."""
    criterion = stages.spec.pruning.importance.criterion
    return str(stages.pretrained_objective) if criterion.needs_data else str(criterion)
