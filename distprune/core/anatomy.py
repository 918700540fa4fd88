"""Anatomy: the heads and neurons of a live model, read from its modules, never from constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn

from distprune.core.families import Family, find_family
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import UnsupportedModelError


@dataclass(frozen=True)
class LayerAnatomy:
    """The modules of one Transformer layer that hold its units.

    Attributes:
        output: Attention output projection [hidden, heads x head size].
        first: First linear map of the FFN [neurons, hidden].
        second: Second linear map of the FFN [hidden, neurons].
        head_size: Width of one head.
    """

    output: nn.Linear
    first: nn.Linear
    second: nn.Linear
    head_size: int

    def num_units(self, kind: UnitKind) -> int:
        """Count the units of `kind` that the layer has now."""
        if kind is UnitKind.HEAD:
            return self.output.in_features // self.head_size
        return self.second.in_features

    def unit_width(self, kind: UnitKind) -> int:
        """Return how many features of the gated input belong to one unit."""
        return self.head_size if kind is UnitKind.HEAD else 1

    def gated(self, kind: UnitKind) -> nn.Linear:
        """Return the module whose input is the units' output, [..., units x unit width]."""
        return self.output if kind is UnitKind.HEAD else self.second


@dataclass(frozen=True)
class Anatomy:
    """Where a model's units are.

    Attributes:
        family: The attribute paths of its family.
        layers: The layer modules themselves, in order.
        parts: Their anatomy, in the same order.
        embeddings: The module that makes the first hidden states.
        hidden_size: Width of the residual stream.
    """

    family: Family
    layers: tuple[nn.Module, ...]
    parts: tuple[LayerAnatomy, ...]
    embeddings: nn.Module
    hidden_size: int

    def counts(self, kind: UnitKind) -> tuple[int, ...]:
        """Count the units of `kind` in each layer."""
        return tuple(part.num_units(kind) for part in self.parts)

    def shape(self) -> EncoderShape:
        """Return the counts of a dense encoder.

        Raises:
            UnsupportedModelError: Layers differ, so the model is compact already.
        """
        heads, neurons = (set(self.counts(kind)) for kind in UnitKind)
        if len(heads) != 1 or len(neurons) != 1:
            raise UnsupportedModelError(
                f"model: heads per layer {self.counts(UnitKind.HEAD)}, neurons per layer "
                f"{self.counts(UnitKind.NEURON)}; all layers of a dense model have the same; "
                "use the checkpoint that it was made from"
            )
        return EncoderShape(
            num_layers=len(self.parts),
            num_heads=heads.pop(),
            num_neurons=neurons.pop(),
            hidden_size=self.hidden_size,
            head_size=self.parts[0].head_size,
        )


def describe_anatomy(model: nn.Module) -> Anatomy:
    """Find the units of a transformers model of a supported family.

    Raises:
        UnsupportedModelError: The family has no entry, or the model is not laid out like it.
    """
    config = getattr(model, "config", None)
    family = find_family(str(getattr(config, "model_type", type(model).__name__)))
    base = cast(nn.Module, getattr(model, "base_model", model))
    try:
        layers = tuple(cast(nn.ModuleList, base.get_submodule(family.layers)))
        head_size = config.hidden_size // config.num_attention_heads  # type: ignore[union-attr]
        return Anatomy(
            family=family,
            layers=layers,
            parts=tuple(_describe_layer(layer, family, head_size) for layer in layers),
            embeddings=base.get_submodule(family.embeddings),
            hidden_size=config.hidden_size,  # type: ignore[union-attr]
        )
    except AttributeError as error:
        raise UnsupportedModelError(
            f"model: {type(model).__name__} is not laid out like its family ({error}); "
            "use a model class of transformers"
        ) from error


def _describe_layer(layer: nn.Module, family: Family, head_size: int) -> LayerAnatomy:
    output, first, second = (
        cast(nn.Linear, layer.get_submodule(path))
        for path in (family.output, family.first, family.second)
    )
    return LayerAnatomy(output=output, first=first, second=second, head_size=head_size)
