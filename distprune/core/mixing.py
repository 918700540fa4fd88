"""Mixing of the pre-trained and the fine-tuned importance (Achlatis 2021; our reconstruction).

Both sources are normalised per layer first, because the gradients of two losses differ in scale.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from distprune.core.importance_scores import FloatArray, Importance, Normalisation, normalise
from distprune.core.mask import BoolArray, Mask
from distprune.core.units import UnitKind


class MixingOperator(StrEnum):
    """How one importance is made of two sources."""

    FINETUNED = "finetuned"
    PRETRAINED = "pretrained"
    CONVEX = "convex"
    GEOMETRIC = "geometric"
    RANK_AVERAGE = "rank_average"
    MAX = "max"
    MIN = "min"
    MASK_UNION = "mask_union"
    MASK_INTERSECTION = "mask_intersection"

    @property
    def takes_coefficient(self) -> bool:
        """Say whether the mixing coefficient has an effect."""
        return self in (
            MixingOperator.CONVEX,
            MixingOperator.GEOMETRIC,
            MixingOperator.RANK_AVERAGE,
        )


def sources_needed(operator: MixingOperator, coefficient: float) -> tuple[bool, bool]:
    """Return whether the (pre-trained, fine-tuned) importance takes part in the mix."""
    if operator is MixingOperator.FINETUNED:
        return False, True
    if operator is MixingOperator.PRETRAINED:
        return True, False
    if operator.takes_coefficient:
        return coefficient > 0.0, coefficient < 1.0
    return True, True


def mix(
    pretrained: Importance | None,
    finetuned: Importance | None,
    mask: Mask,
    operator: MixingOperator,
    coefficient: float,
    normalisation: Normalisation,
) -> Importance:
    """Mix two raw importances into one, over the live units of `mask`.

    Args:
        pretrained: Raw importance of the pre-trained model; None where `sources_needed` says so.
        finetuned: Raw importance of the fine-tuned model; None where `sources_needed` says so.
        mask: Live units; the others get zero.
        operator: How to mix.
        coefficient: λ in [0, 1]; 0 is the fine-tuned source alone, 1 the pre-trained one.
        normalisation: Per-layer normalisation of each source before it is mixed.

    Returns:
        The mixed importance, higher = keep.

    Raises:
        ValueError: A source that takes part is None.
    """
    sources = []
    needed = sources_needed(operator, coefficient)
    for source, is_needed in zip((pretrained, finetuned), needed, strict=True):
        if is_needed and source is None:
            raise ValueError(
                f"importance: None; {operator} at coefficient {coefficient} needs (pre-trained, "
                f"fine-tuned) = {needed}; measure it first"
            )
        if is_needed and source is not None:
            sources.append(normalise(source, mask, normalisation))
    if len(sources) == 1:
        return sources[0]
    first, second = sources
    return Importance(
        {
            kind: _mix_arrays(first[kind], second[kind], mask[kind], operator, coefficient)
            for kind in UnitKind
        }
    )


def _mix_arrays(
    pretrained: FloatArray,
    finetuned: FloatArray,
    kept: BoolArray,
    operator: MixingOperator,
    coefficient: float,
) -> FloatArray:
    match operator:
        case MixingOperator.CONVEX:
            mixed = coefficient * pretrained + (1.0 - coefficient) * finetuned
        case MixingOperator.GEOMETRIC:
            mixed = pretrained**coefficient * finetuned ** (1.0 - coefficient)
        case MixingOperator.MAX:
            mixed = np.maximum(pretrained, finetuned)
        case MixingOperator.MIN:
            mixed = np.minimum(pretrained, finetuned)
        case _:
            ranks = _rank(pretrained, kept), _rank(finetuned, kept)
            mixed = _mix_ranks(*ranks, operator, coefficient)
    return np.where(kept, mixed, 0.0)


def _mix_ranks(
    pretrained: FloatArray, finetuned: FloatArray, operator: MixingOperator, coefficient: float
) -> FloatArray:
    """Mix ranks in (0, 1].

    Keeping the union of the two top-k masks, k chosen so that the union has the wanted size, is to
    rank by the better of the two ranks; keeping the intersection, by the worse of them.
    """
    if operator is MixingOperator.RANK_AVERAGE:
        return coefficient * pretrained + (1.0 - coefficient) * finetuned
    if operator is MixingOperator.MASK_UNION:
        return np.maximum(pretrained, finetuned)
    if operator is MixingOperator.MASK_INTERSECTION:
        return np.minimum(pretrained, finetuned)
    raise ValueError(f"operator: {operator!r} does not mix two sources")


def _rank(scores: FloatArray, kept: BoolArray) -> FloatArray:
    """Rank live units globally, 1 = most important; ties share the order (score, layer, unit)."""
    layers, units = np.nonzero(kept)
    order = np.lexsort((units, layers, scores[layers, units]))
    ranks = np.zeros_like(scores)
    ranks[layers[order], units[order]] = np.arange(1, len(order) + 1) / max(len(order), 1)
    return ranks
