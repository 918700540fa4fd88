"""Gates: float multipliers on the output of each head and neuron, for a `with` block.

A gate is a forward pre-hook on the linear map that reads the units: the attention output projection
for heads, the second FFN map for neurons. That is where removing a unit acts, it does not depend on
the attention kernel, and transformers 5 has no head mask of its own (it ignores one silently).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distprune.core.anatomy import describe_anatomy
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import MaskError

Gates = Mapping[UnitKind, Sequence[Tensor]]
"""For each kind one tensor per layer, broadcastable to [batch, token, unit]."""


Multiply = Callable[[Tensor, Tensor, int], Tensor]
"""Multiplies features [batch, token, units x width] by a gate, given the width of a unit."""


def multiply_units(features: Tensor, layer_gate: Tensor, unit_width: int) -> Tensor:
    """Multiply features in the gate's precision, and return them in their own."""
    if unit_width == 1:
        gated = features * layer_gate
    else:
        # [batch, token, units x width] -> [batch, token, units, width]
        split = features.view(*features.shape[:-1], -1, unit_width)
        gated = (split * layer_gate.unsqueeze(-1)).flatten(-2)
    return gated.to(features.dtype)


@contextmanager
def apply_gates(
    model: nn.Module, gates: Gates, multiply: Multiply = multiply_units
) -> Iterator[None]:
    """Multiply the units of `model` by `gates` inside the block; hooks are gone after it.

    Args:
        model: A transformers model of a supported family, dense or compact.
        gates: For each kind one tensor per layer, broadcastable to [batch, token, unit]; layers
            without units are passed over.
        multiply: Multiplies the features of one layer.
    """
    parts = describe_anatomy(model).parts
    with ExitStack() as stack:
        for kind, layer_gates in gates.items():
            for part, layer_gate in zip(parts, layer_gates, strict=True):
                if part.num_units(kind) == 0:
                    continue
                hook = _gate_hook(layer_gate, part.unit_width(kind), multiply)
                handle = part.gated(kind).register_forward_pre_hook(hook)
                stack.callback(handle.remove)
        yield


@contextmanager
def gate(model: nn.Module, mask: Mask) -> Iterator[None]:
    """Apply `mask` to a dense `model` inside the block.

    Raises:
        MaskError: The mask was made for other counts.
    """
    check_fit(model, mask)
    device = next(model.parameters()).device
    gates = {
        kind: [torch.from_numpy(row.astype("float32")).to(device) for row in mask[kind]]
        for kind in UnitKind
    }
    with apply_gates(model, gates):
        yield


def check_fit(model: nn.Module, mask: Mask) -> None:
    """Check that `mask` was made for a model with these counts.

    Raises:
        MaskError: It was not; the message has both.
    """
    anatomy = describe_anatomy(model)
    for kind in UnitKind:
        counts = anatomy.counts(kind)
        layers, units = mask[kind].shape
        if counts != (units,) * layers:
            raise MaskError(
                f"mask: made for {layers} layers of {units} {kind}s; the model has {kind}s per "
                f"layer {counts}; use the mask with the checkpoint it was made for"
            )


def _gate_hook(layer_gate: Tensor, unit_width: int, multiply: Multiply) -> Any:
    def multiply_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        features, *rest = inputs
        return (multiply(features, layer_gate, unit_width), *rest)

    return multiply_input
