"""Expansion: a dense model that computes, under a mask's gates, what a compact model computes.

The way back from compaction. It is how a model that was trained compact is checked against gates,
and timed against its dense size.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distprune.core.anatomy import Anatomy, describe_anatomy
from distprune.core.compact_model import RECORD, dense_class
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import MaskError


def expand(model: Any, mask: Mask) -> Any:
    """Return a dense model with the weights of a compact one where the units are that it kept.

    Removed units have the weights of a new model; under `mask`'s gates they have no effect.

    Args:
        model: A compact transformers model; not modified.
        mask: The mask that it was compacted to.

    Raises:
        MaskError: The model has other numbers of units than `mask` keeps.
    """
    compact = describe_anatomy(model)
    check_counts(compact, mask)
    config = copy.deepcopy(model.config)
    for name in (RECORD, "auto_map"):
        if hasattr(config, name):
            delattr(config, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense = dense_class(type(model))(config)
    with torch.no_grad():
        _copy_equal(model, dense)
        anatomy = describe_anatomy(dense)
        for layer in range(len(compact.layers)):
            _copy_units(compact, anatomy, layer, mask)
    return dense.to(next(model.parameters()).device).train(model.training)


def check_counts(anatomy: Anatomy, mask: Mask) -> None:
    """Check that a model has as many units in each layer as a mask keeps.

    Raises:
        MaskError: It has not; the message has both.
    """
    for kind in UnitKind:
        kept = tuple(mask[kind].sum(axis=1).tolist())
        if anatomy.counts(kind) != kept:
            raise MaskError(
                f"mask: keeps {kept} {kind}s per layer; the model has {anatomy.counts(kind)}; "
                "use the mask that the model was compacted to (mask.compact(model))"
            )


def _copy_equal(model: nn.Module, dense: nn.Module) -> None:
    """Copy all tensors that have the same shape in both; those of whole layers are among them."""
    state = dense.state_dict()
    for name, tensor in model.state_dict().items():
        if state[name].shape == tensor.shape:
            state[name].copy_(tensor)


def _copy_units(compact: Anatomy, dense: Anatomy, layer: int, mask: Mask) -> None:
    family, part = dense.family, dense.parts[layer]
    heads = np.flatnonzero(mask[UnitKind.HEAD][layer])
    features = (heads[:, None] * part.head_size + np.arange(part.head_size)).reshape(-1)
    neurons = np.flatnonzero(mask[UnitKind.NEURON][layer])
    source, target = compact.layers[layer], dense.layers[layer]
    rows = {f"{family.attention}.{name}": features for name in _projections(compact, layer)}
    rows[family.first] = neurons
    for path, index in rows.items():
        _copy_rows(source.get_submodule(path), target.get_submodule(path), torch.as_tensor(index))
    for path, index in ((family.output, features), (family.second, neurons)):
        into = target.get_submodule(path).weight
        assert isinstance(into, Tensor)
        into[:, torch.as_tensor(index)] = source.get_submodule(path).weight  # type: ignore[assignment]


def _projections(compact: Anatomy, layer: int) -> tuple[str, ...]:
    """Return the paths of query, key and value; an attention without heads has none."""
    family = compact.family
    is_empty = compact.parts[layer].num_units(UnitKind.HEAD) == 0
    return () if is_empty else (family.query, family.key, family.value)


def _copy_rows(source: nn.Module, target: nn.Module, index: Tensor) -> None:
    for name, tensor in source.named_parameters():
        target.get_parameter(name)[index] = tensor
