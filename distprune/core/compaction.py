"""Compaction: a model without its masked units, with the same output as under the mask's gates.

Rows of query, key, value and columns of the output projection go with a head; a row of the first
and a column of the second FFN map go with a neuron. Biases of the output maps stay, also where a
layer lost all its units: its attention (or FFN) is then that bias. Layer norms are not touched.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distprune.core.anatomy import Anatomy, describe_anatomy
from distprune.core.families import Family
from distprune.core.gating import check_fit
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import MaskError


def compact(model: nn.Module, mask: Mask, live: Mask | None = None) -> nn.Module:
    """Return a copy of `model` without the units that `mask` removes.

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
    for layer in range(mask.num_layers):
        heads, neurons = (np.flatnonzero(mask[kind][layer][live[kind][layer]]) for kind in UnitKind)
        _keep_heads(anatomy, layer, heads)
        _keep_neurons(anatomy, layer, neurons)
    return smaller


def _check_live(anatomy: Anatomy, live: Mask) -> None:
    for kind in UnitKind:
        kept = tuple(live[kind].sum(axis=1).tolist())
        if anatomy.counts(kind) != kept:
            raise MaskError(
                f"live mask: keeps {kept} {kind}s per layer; the model has "
                f"{anatomy.counts(kind)}; pass the mask that the model was compacted to"
            )


def _keep_heads(anatomy: Anatomy, layer: int, heads: NDArray[np.intp]) -> None:
    part, family = anatomy.parts[layer], anatomy.family
    if len(heads) == part.num_units(UnitKind.HEAD):
        return
    module = anatomy.layers[layer]
    attention = module.get_submodule(family.attention)
    features = torch.as_tensor(
        (heads[:, None] * part.head_size + np.arange(part.head_size)).reshape(-1)
    )
    output = _slice_linear(part.output, features, dim=1)
    if len(heads) == 0:
        _replace_attention(module, family, output)
        return
    for path in (family.query, family.key, family.value):
        projection = cast(nn.Linear, attention.get_submodule(path))
        _set_submodule(attention, path, _slice_linear(projection, features, dim=0))
    _set_submodule(module, family.output, output)
    for name in family.head_count:
        setattr(attention, name, len(heads))
    for name in family.all_heads_width:
        setattr(attention, name, len(features))


def _keep_neurons(anatomy: Anatomy, layer: int, neurons: NDArray[np.intp]) -> None:
    part, family = anatomy.parts[layer], anatomy.family
    if len(neurons) == part.num_units(UnitKind.NEURON):
        return
    index = torch.as_tensor(neurons)
    module = anatomy.layers[layer]
    _set_submodule(module, family.first, _slice_linear(part.first, index, dim=0))
    _set_submodule(module, family.second, _slice_linear(part.second, index, dim=1))


class EmptyAttention(nn.Module):
    """An attention that lost all its heads: it passes on zero features for each token.

    The output projection keeps its bias. Where the family holds that projection inside the
    attention module, it lives here under its own name and is applied here.
    """

    def __init__(self, output_name: str | None, output: nn.Linear) -> None:
        super().__init__()
        self.output_name = output_name
        if output_name is not None:
            self.add_module(output_name, output)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Return [batch, token, 0] features (or the projected bias), and no attention weights."""
        features = hidden_states.new_zeros((*hidden_states.shape[:-1], 0))
        if self.output_name is not None:
            features = self.get_submodule(self.output_name)(features)
        return features, None


def _replace_attention(module: nn.Module, family: Family, output: nn.Linear) -> None:
    inside = family.output.startswith(family.attention + ".")
    name = family.output.removeprefix(family.attention + ".") if inside else None
    _set_submodule(module, family.attention, EmptyAttention(name, output))
    if not inside:
        _set_submodule(module, family.output, output)


def _slice_linear(linear: nn.Linear, index: Tensor, dim: int) -> nn.Linear:
    """Return a linear map with only the rows (dim 0) or columns (dim 1) of `index`."""
    index = index.to(linear.weight.device)
    weight = linear.weight.detach().index_select(dim, index)
    bias = linear.bias
    # Made on the meta device: nothing is initialised, so no random state is spent. Sized 1 x 1 at
    # first: torch warns of an initialisation without elements.
    sliced = nn.Linear(1, 1, bias=bias is not None, device="meta")
    sliced.out_features, sliced.in_features = weight.shape
    sliced.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
    if bias is not None:
        kept = bias.detach().index_select(0, index) if dim == 0 else bias.detach().clone()
        sliced.bias = nn.Parameter(kept, requires_grad=bias.requires_grad)
    return sliced.train(linear.training)


def _set_submodule(module: nn.Module, path: str, replacement: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, replacement)
