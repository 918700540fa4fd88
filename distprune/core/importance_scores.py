"""Importance: one score per unit, higher = keep; what it can be made of, and its normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distprune.core.mask import BoolArray, Mask
from distprune.core.units import UnitKind

FloatArray = NDArray[np.float64]

EPSILON = 1e-20
"""Added to a layer's norm (Michel et al. 2019, released code): a layer of zeros stays zero."""


class Criterion(StrEnum):
    """What a unit's importance is made of."""

    ABS_GRADIENT = "abs_gradient"
    FISHER = "fisher"
    MAGNITUDE = "magnitude"
    RANDOM = "random"

    @property
    def needs_data(self) -> bool:
        """Say whether examples are run through the model."""
        return self in (Criterion.ABS_GRADIENT, Criterion.FISHER)


class Estimator(StrEnum):
    """Over what a gradient is summed before its magnitude is taken."""

    EXAMPLE = "example"
    TOKEN = "token"
    BATCH = "batch"


class Normalisation(StrEnum):
    """How the scores of one layer are brought to one scale."""

    L2 = "l2"
    L1 = "l1"
    MAX = "max"
    NONE = "none"


@dataclass(frozen=True, eq=False)
class Importance:
    """A score per unit.

    Attributes:
        scores: For each unit kind a float64 array [layer, unit], >= 0, higher = keep; 0 for masked
            units. Read-only.
    """

    scores: Mapping[UnitKind, FloatArray]

    def __post_init__(self) -> None:
        frozen: dict[UnitKind, FloatArray] = {}
        for kind in UnitKind:
            array = np.array(self.scores[kind], dtype=np.float64)
            array.flags.writeable = False
            frozen[kind] = array
        object.__setattr__(self, "scores", MappingProxyType(frozen))

    def __getitem__(self, kind: UnitKind | str) -> FloatArray:
        return self.scores[UnitKind(kind)]

    def __reduce__(self) -> tuple[type[Importance], tuple[Any, ...]]:
        return Importance, (dict(self.scores),)

    @property
    def is_finite(self) -> bool:
        """Say whether every score is finite."""
        return all(bool(np.isfinite(self[kind]).all()) for kind in UnitKind)


def normalise(importance: Importance, mask: Mask, normalisation: Normalisation) -> Importance:
    """Divide the live scores of each layer by the layer's norm; masked units become zero.

    A gate's gradient at a masked unit is not zero, so masked units leave before the norm is taken.
    """
    return Importance(
        {kind: _normalise_layers(importance[kind], mask[kind], normalisation) for kind in UnitKind}
    )


def _normalise_layers(
    scores: FloatArray, kept: BoolArray, normalisation: Normalisation
) -> FloatArray:
    live = np.where(kept, scores, 0.0)
    if normalisation is Normalisation.NONE:
        return live
    magnitude = np.abs(live)
    if normalisation is Normalisation.L2:
        norm = np.sqrt((magnitude**2).sum(axis=1, keepdims=True))
    elif normalisation is Normalisation.L1:
        norm = magnitude.sum(axis=1, keepdims=True)
    else:
        norm = magnitude.max(axis=1, keepdims=True, initial=0.0)
    normalised: FloatArray = live / (norm + EPSILON)
    return normalised
