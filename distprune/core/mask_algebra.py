"""Mask algebra: union, intersection and difference of masks, and how much two masks agree.

Masks are sets of kept units. All masks of one operation must have been made for the same counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from distprune.core.mask import BoolArray, Mask
from distprune.core.units import UnitKind
from distprune.errors import MaskError


def unite(masks: Sequence[Mask]) -> Mask:
    """Keep what any of the masks keeps.

    Raises:
        MaskError: There is no mask, or they were made for different counts.
    """
    return _combine(masks, np.logical_or)


def intersect(masks: Sequence[Mask]) -> Mask:
    """Keep what all of the masks keep; Prasanna et al. 2020 call it the "super" subnetwork.

    Raises:
        MaskError: There is no mask, or they were made for different counts.
    """
    return _combine(masks, np.logical_and)


def subtract(mask: Mask, other: Mask) -> Mask:
    """Keep what `mask` keeps and `other` does not.

    Raises:
        MaskError: They were made for different counts.
    """
    return _combine((mask, other), lambda kept, removed: kept & ~removed)


def measure_overlap(mask: Mask, other: Mask) -> Mapping[UnitKind, NDArray[np.float64]]:
    """Return the Jaccard index of two masks in each layer.

    Returns:
        For each kind floats [layer] in [0, 1]: units that both keep / units that either keeps. 1 =
        the same units, also where both keep none.

    Raises:
        MaskError: They were made for different counts.
    """
    check_same_counts((mask, other))
    overlaps = {}
    for kind in UnitKind:
        both = (mask[kind] & other[kind]).sum(axis=1)
        either = (mask[kind] | other[kind]).sum(axis=1)
        overlaps[kind] = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    return overlaps


def check_same_counts(masks: Sequence[Mask]) -> None:
    """Check that masks were made for the same numbers of layers, heads and neurons.

    Raises:
        MaskError: They were not; the message has both.
    """
    first = describe_units(masks[0])
    for number, mask in enumerate(masks[1:], start=2):
        if describe_units(mask) != first:
            raise MaskError(
                f"masks: the first was made for {first}, number {number} for "
                f"{describe_units(mask)}; combine masks of one architecture only"
            )


def _combine(masks: Sequence[Mask], operation: Callable[[BoolArray, BoolArray], BoolArray]) -> Mask:
    if not masks:
        raise MaskError("masks: none was given; name one at least")
    check_same_counts(masks)
    return Mask({kind: reduce(operation, (mask[kind] for mask in masks)) for kind in UnitKind})


def describe_counts(layers: int, heads: int, neurons: int) -> str:
    """Return the counts of an encoder in words; heads and neurons are those of one layer."""
    return f"{layers} layers of {heads} heads and {neurons} neurons"


def describe_units(mask: Mask) -> str:
    """Return in words what encoder a mask was made for."""
    layers, heads = mask[UnitKind.HEAD].shape
    return describe_counts(layers, heads, mask[UnitKind.NEURON].shape[1])
