"""The ticket: a mask together with the weights that were trained under it."""

from __future__ import annotations

from dataclasses import dataclass

from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask


@dataclass(frozen=True)
class WeightsReference:
    """Weights in the store. They never travel; only this does.

    Attributes:
        key: Key of the store entry.
        file: Name of the weights file in it.
    """

    key: str
    file: str


@dataclass(frozen=True)
class MeasuredImportance:
    """A raw importance and the store entry that it was read from."""

    importance: Importance
    key: str


@dataclass(frozen=True)
class Evidence:
    """What a mask was chosen by: the keys of the scores, and the pre-trained objective in use."""

    pretrained_key: str | None = None
    finetuned_key: str | None = None
    pretrained_objective: str | None = None


@dataclass(frozen=True)
class Ticket:
    """The state of a trial after one level.

    Attributes:
        level: 0 = the dense fine-tuned model.
        sparsity: The level's target sparsity, in [0, 1).
        mask: Units that are kept.
        weights: Weights to evaluate and to score under this mask.
        evidence: What the mask was chosen by.
    """

    level: int
    sparsity: float
    mask: Mask
    weights: WeightsReference
    evidence: Evidence = Evidence()
