"""Kinds of stage: stages of one kind take a time in proportion to the examples that they see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from distprune.core.importance_scores import Criterion
from distprune.core.mask import Mask
from distprune.trial.request import StageRequest

EVALUATION_BATCHES = {"cuda": 256, "cpu": 32}
"""Examples that are evaluated at a time: enough to fill a GPU, few enough for a core's cache."""


@dataclass(frozen=True, order=True)
class StageKind:
    """What decides the time of an example, beside the model's size.

    Attributes:
        stage: Name of the stage.
        variant: What else decides it, in words.
    """

    stage: str
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.stage} ({self.variant})" if self.variant else self.stage


def find_kind(request: StageRequest) -> StageKind:
    """Return the kind of a stage."""
    settings = request.settings
    if request.stage == "retrain":
        frozen = [f"{part} frozen" for part in sorted(settings["recipe"]["freeze"])]
        distilled = ["distilled"] if "teacher" in request.inputs else []
        return StageKind(request.stage, ", ".join([*frozen, *distilled]))
    if request.stage == "score":
        if not Criterion(settings["criterion"]).needs_data:
            return StageKind(request.stage, settings["criterion"])
        return StageKind(request.stage, f"{settings['objective']}, {settings['estimator']}")
    return StageKind(request.stage)


def find_mask(request: StageRequest) -> Mask | None:
    """Return the mask under which a stage computes; None: the dense model."""
    packed = request.settings.get("mask")
    return None if packed is None else Mask.unpack(packed)


def count_examples(request: StageRequest, counts: Mapping[str, int]) -> float:
    """Count the examples that a stage sees, repetitions included.

    Args:
        request: The stage.
        counts: Examples of each split.
    """
    settings = request.settings
    if "recipe" in settings:
        recipe = settings["recipe"]
        if recipe["steps"] is not None:
            return float(recipe["steps"] * recipe["batch_size"])
        return float(recipe["epochs"] * counts["train"])
    if request.stage == "evaluate":
        return float(counts[settings["split"]])
    if "examples" in settings:
        sampled = min(settings["examples"], counts["train"])
        return float(sampled * settings.get("mlm_draws", 1))
    return 0.0


def count_lengths(request: StageRequest, lengths: Mapping[str, int], num_examples: float) -> int:
    """Count the different lengths of batches that a stage meets, at most.

    Args:
        request: The stage.
        lengths: Different lengths of the batches of each split.
        num_examples: Examples that the stage sees.
    """
    settings = request.settings
    if request.stage == "evaluate":
        return lengths[settings["split"]]
    batch_size = settings.get("recipe", settings).get("batch_size")
    return min(lengths["train"], math.ceil(num_examples / batch_size)) if num_examples else 0
