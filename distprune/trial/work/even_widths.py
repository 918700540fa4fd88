"""Feed-forward layers of even widths, so that the compact models of different masks share kernels.

A CPU compiles a kernel for each shape of a matrix product, and nearly every layer that lost neurons
has a width of its own. So each stage compiled hundreds of kernels, and a worker that had run some
ten stages compiled each one in the place of another. Here widths are rounded up while a model
computes, by neurons that compute nothing; what is stored has none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN

from distprune.core.anatomy import LayerAnatomy, describe_anatomy
from distprune.core.mask import Mask
from distprune.core.units import UnitKind

MULTIPLE = 64
"""What widths are rounded up to, in neurons, but never to more than the dense model's."""


@contextmanager
def even_widths(model: Any, mask: Mask) -> Iterator[None]:
    """Give a compact model layers of even widths inside the block, in place.

    All weights of an added neuron are zero. So its activation is zero, its weights get no gradient,
    and an optimiser that starts from zero moments leaves them where they are, weight decay or not.
    Models whose activation of zero is not zero stay as they are.

    Args:
        model: A model that is compact under `mask`; trained or measured inside the block.
        mask: Its shape tells how wide the dense model is.
    """
    dense_width = mask[UnitKind.NEURON].shape[1]
    parts = describe_anatomy(model).parts if _is_silent_at_zero(model) else ()
    widened = [_Widened(part, part.second.in_features) for part in parts]
    for layer in widened:
        layer.resize(_round_up(layer.width, dense_width))
    try:
        yield
    finally:
        for layer in widened:
            layer.resize(layer.width)


def _round_up(width: int, dense_width: int) -> int:
    return min(-(-width // MULTIPLE) * MULTIPLE, dense_width)


def _is_silent_at_zero(model: Any) -> bool:
    config = model.config
    name = getattr(config, "hidden_act", None) or config.activation  # distilbert's word
    activate = ACT2FN[name] if isinstance(name, str) else name
    return bool(activate(torch.zeros(1)) == 0)


@dataclass(frozen=True)
class _Widened:
    """The FFN of one layer, and how many neurons it has of its own."""

    part: LayerAnatomy
    width: int

    def resize(self, width: int) -> None:
        """Add zeros behind the neurons that there are, or remove them again."""
        first, second = self.part.first, self.part.second
        more = width - second.in_features
        if more:
            _pad(first, "weight", (0, 0, 0, more))
            _pad(first, "bias", (0, more))
            _pad(second, "weight", (0, more))
            first.out_features = second.in_features = width


def _pad(module: nn.Linear, name: str, amounts: tuple[int, ...]) -> None:
    """Replace a parameter by one with so many zeros more, or values less, on each side."""
    old = getattr(module, name)
    if old is not None:
        padded = functional.pad(old.detach(), amounts).contiguous()
        setattr(module, name, nn.Parameter(padded, requires_grad=old.requires_grad))
