"""A reference for masks that knows no gates: the weights that read a unit's output, set to zero."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from distprune.core.mask import Mask
from tests.model_families import SHAPE

OUTPUTS = {
    "bert": ("attention.output.dense", "output.dense"),
    "roberta": ("attention.output.dense", "output.dense"),
    "electra": ("attention.output.dense", "output.dense"),
    "distilbert": ("attention.out_lin", "ffn.lin2"),
}
"""Of each family the maps that read heads and neurons, spelled out apart from the package's."""

LAYERS = {"distilbert": "transformer.layer"}
"""Where the layers are, if not in `encoder.layer`."""


def zero_units(model: Any, mask: Mask) -> Any:
    """Return a copy whose output maps do not read the masked units.

    Zero query, key and value rows would not do: zero scores are a uniform attention.
    """
    zeroed = copy.deepcopy(model)
    family = zeroed.config.model_type
    layers = zeroed.base_model.get_submodule(LAYERS.get(family, "encoder.layer"))
    heads_path, neurons_path = OUTPUTS[family]
    with torch.no_grad():
        for index, layer in enumerate(layers):
            heads = np.repeat(mask["head"][index], SHAPE.head_size)
            layer.get_submodule(heads_path).weight[:, torch.from_numpy(~heads)] = 0.0
            lost = torch.from_numpy(~mask["neuron"][index])
            layer.get_submodule(neurons_path).weight[:, lost] = 0.0
    return zeroed
