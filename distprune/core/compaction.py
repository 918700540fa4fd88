"""Compaction: a model without its masked units, with the same output as under the mask's gates.

Rows of query, key, value and columns of the output projection go with a head; a row of the first
and a column of the second FFN map go with a neuron. Biases of the output maps stay, also where a
layer lost all its units: its attention (or FFN) is then that bias. Layer norms are not touched.
"""

from __future__ import annotations

import copy
from dataclasses import asdict

import numpy as np
from torch import nn

from distprune.core.anatomy import Anatomy, describe_anatomy
from distprune.core.compact_model import keep_units, record_counts
from distprune.core.gating import check_fit
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import MaskError


def compact(model: nn.Module, mask: Mask, live: Mask | None = None) -> nn.Module:
    """Return a copy of `model` without the units that `mask` removes.

    What has lost units is a `distprune.core.compact_model.Compact`: it saves and loads like any
    model of transformers.

    Args:
        model: A transformers model of a supported family; not modified.
        mask: Units to keep, in the coordinates of the dense model.
        live: The mask that `model` has been compacted to already; None = it is dense.

    Raises:
        MaskError: `mask` was made for other counts, or keeps units that the model has lost; `live`
            is not what the model was compacted to.
    """
    if live is None:
        check_fit(model, mask)
        live = Mask({kind: np.ones_like(mask[kind]) for kind in UnitKind})
    elif not mask.is_within(live):
        raise MaskError("mask: keeps units that the compact model has lost; use a narrower mask")
    smaller = copy.deepcopy(model)
    anatomy = describe_anatomy(smaller)
    _check_live(anatomy, live)
    layout, head_size = asdict(anatomy.family), anatomy.parts[0].head_size
    for number, layer in enumerate(anatomy.layers):
        heads, neurons = (
            np.flatnonzero(mask[kind][number][live[kind][number]]).tolist() for kind in UnitKind
        )
        keep_units(layer, layout, head_size, heads, neurons)
    if not all(mask[kind].all() for kind in UnitKind):
        kept = (mask[kind].sum(axis=1).tolist() for kind in UnitKind)
        record_counts(smaller, layout, head_size, *kept)
    return smaller


def _check_live(anatomy: Anatomy, live: Mask) -> None:
    for kind in UnitKind:
        kept = tuple(live[kind].sum(axis=1).tolist())
        if anatomy.counts(kind) != kept:
            raise MaskError(
                f"live mask: keeps {kept} {kind}s per layer; the model has "
                f"{anatomy.counts(kind)}; pass the mask that the model was compacted to"
            )
