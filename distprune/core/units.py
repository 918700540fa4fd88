"""The units that are removed as a whole, and the dense encoder that they are counted in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class UnitKind(StrEnum):
    """A kind of unit that can be removed without changing the shapes around it."""

    HEAD = "head"
    NEURON = "neuron"


@dataclass(frozen=True)
class EncoderShape:
    """Counts of a dense encoder; every layer has the same.

    Attributes:
        num_layers: Transformer layers.
        num_heads: Attention heads of one layer.
        num_neurons: FFN neurons of one layer.
        hidden_size: Width of the residual stream.
        head_size: Width of one head.
    """

    num_layers: int
    num_heads: int
    num_neurons: int
    hidden_size: int
    head_size: int

    def units_per_layer(self, kind: UnitKind) -> int:
        """Count the units of `kind` in one layer."""
        return self.num_heads if kind is UnitKind.HEAD else self.num_neurons

    def total(self, kind: UnitKind) -> int:
        """Count the units of `kind` in the whole encoder."""
        return self.num_layers * self.units_per_layer(kind)
