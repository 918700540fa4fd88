"""Replication: a mask trained and measured anew with a seed that its study has not used.

A replicate has its own dense fine-tuning, head, data order and dropout. The mask is trained once,
from the trial's own rewinding point and by its own recipe, whatever masks came before it there.
"""

from __future__ import annotations

from distprune.core.mask import Mask
from distprune.methods.spec import PruningSpec, Retraining
from distprune.methods.ticket import WeightsReference
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import Evaluation, TrialStages

REPORT = "report"
"""The split that no decision of a study looks at."""


def choose_seeds(study_seed: int, count: int) -> tuple[int, ...]:
    """Return the seeds 1, 2, ... of the replicates, without the study's own."""
    candidates = (seed for seed in range(1, count + 2) if seed != study_seed)
    return tuple(candidates)[:count]


def choose_starting_point(pruning: PruningSpec) -> float:
    """Return the fraction of the dense fine-tuning that replicates are trained from.

    A trial that continues from the level before has no such point. Its replicates start from the
    dense fine-tuned weights, 1.0, as its first level does.
    """
    return 1.0 if pruning.rewinding == "continue" else float(pruning.rewinding)


def describe_training(pruning: PruningSpec) -> str:
    """Say in a few words how replicates are trained."""
    if pruning.retraining is Retraining.NEVER:
        return "dense fine-tuned weights under the mask, not trained again, as in its trial"
    point = choose_starting_point(pruning)
    if pruning.rewinding == "continue":
        return (
            "trained once from the dense fine-tuned weights (its trial continued level by level; "
            "here all arms start from 1.0)"
        )
    names = {0.0: "the pre-trained weights", 1.0: "the dense fine-tuned weights"}
    return f"trained once from {names.get(point, f'{point:g} of the dense fine-tuning')}"


def seed_stages(stages: TrialStages, spec: TrialSpec, seed: int) -> TrialStages:
    """Return the stages of the trial `spec` as a replicate, with a log of their own."""
    replicate = spec.model_copy(update={"seed": seed})
    return TrialStages(replicate, stages.context, stages.store, stages.executor)


def train_mask(stages: TrialStages, mask: Mask) -> WeightsReference:
    """Train a mask as its trial does after a level; the dense mask needs no training."""
    pruning = stages.spec.pruning
    if pruning.retraining is Retraining.NEVER or mask == Mask.dense(stages.shape):
        return stages.dense().weights
    return stages.retrain(stages.rewind(choose_starting_point(pruning)), mask)


def measure_mask(stages: TrialStages, mask: Mask) -> Evaluation:
    """Train a mask and measure it on the report split.

    Raises:
        DivergedTrialError: The metric is not finite.
    """
    return stages.evaluate_weights(train_mask(stages, mask), mask, REPORT)
