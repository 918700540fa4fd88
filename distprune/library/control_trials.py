"""Control trials: what the trial of a best mask would have found with one setting changed."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any

from distprune.core.importance_scores import Criterion
from distprune.core.mask import Mask
from distprune.core.mixing import MixingOperator
from distprune.errors import CheckpointError
from distprune.models.checkpoint import CheckpointFacts
from distprune.trial.runner import run_trial
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import TrialStages, resolve_objective


class Control(StrEnum):
    """A mask that the best one has to be better than."""

    RANDOM = "random"
    INVERTED = "inverted"
    LAMBDA_0 = "lambda_0"
    LAMBDA_1 = "lambda_1"
    MAGNITUDE = "magnitude"

    @property
    def is_trial(self) -> bool:
        """Say whether the mask is found by a changed trial, and not drawn at random."""
        return self in (Control.LAMBDA_0, Control.LAMBDA_1, Control.MAGNITUDE)


def change_trial(spec: TrialSpec, control: Control) -> TrialSpec:
    """Return a trial with the one setting changed that makes it a control.

    Raises:
        ValueError: The control is drawn at random.
    """
    pruning = spec.pruning
    changed: dict[str, Any]
    match control:
        case Control.LAMBDA_0:
            # The coefficient has no effect now; trials that differ in it alone become the same.
            mixing = {"operator": MixingOperator.FINETUNED, "coefficient": 0.0}
            changed = {"mixing": pruning.mixing.model_copy(update=mixing)}
        case Control.LAMBDA_1:
            mixing = {"operator": MixingOperator.PRETRAINED, "coefficient": 1.0}
            changed = {"mixing": pruning.mixing.model_copy(update=mixing)}
        case Control.MAGNITUDE:
            criterion = {"criterion": Criterion.MAGNITUDE}
            changed = {"importance": pruning.importance.model_copy(update=criterion)}
        case _:
            raise ValueError(f"control: {control} is drawn at random; no trial finds it")
    return spec.model_copy(update={"pruning": pruning.model_copy(update=changed)})


def finds_the_same(spec: TrialSpec, control: Control) -> bool:
    """Say whether the change of a control changes nothing, so that the same masks are found."""
    changed = change_trial(spec, control).pruning
    if changed.importance.criterion is not spec.pruning.importance.criterion:
        return False
    # A source that is used alone is used alone whatever the operator.
    return changed.sources == spec.pruning.sources


def explain_no_trial(spec: TrialSpec, control: Control, checkpoint: CheckpointFacts) -> str | None:
    """Say why the changed trial cannot be run; None: it can."""
    changed = change_trial(spec, control).pruning
    if not changed.sources[0] or not changed.importance.criterion.needs_data:
        return None
    try:
        resolve_objective(changed.importance.pretrained_objective, checkpoint)
    except CheckpointError as error:
        return str(error)
    return None


def find_masks(stages: TrialStages, levels: Collection[int]) -> dict[int, Mask]:
    """Run a trial to the last of `levels`, and return its masks there.

    Raises:
        DivergedTrialError: A metric or a score on the way is not finite.
    """
    masks: dict[int, Mask] = {}
    for result in run_trial(stages):
        if result.level in levels:
            masks[result.level] = result.mask
        if result.level >= max(levels):
            break
    return masks
