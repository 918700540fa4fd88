"""Cost of an encoder under a mask, counted: parameters and multiply-accumulates (MACs).

Counts cover the encoder layers only; embeddings, pooler and classifier are outside. MACs follow
Kwon et al. 2022 (released code): projections and the two attention products, no softmax, no norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from distprune.core.mask import Mask
from distprune.core.units import EncoderShape, UnitKind


class CostKind(StrEnum):
    """What is counted."""

    PARAMETERS = "parameters"
    MACS = "macs"


@dataclass(frozen=True)
class EncoderCost:
    """Counted cost of an encoder.

    Attributes:
        parameters: Parameters of the encoder layers, biases and layer norms included.
        macs: Multiply-accumulates of one sequence of `num_tokens` tokens.
        num_tokens: Sequence length that the MACs hold for.
    """

    parameters: int
    macs: float
    num_tokens: float


def unit_cost(kind: UnitKind, shape: EncoderShape, cost: CostKind, num_tokens: float) -> float:
    """Return the cost that goes with one unit.

    Args:
        kind: Unit kind.
        shape: Counts of the dense encoder.
        cost: Parameters, or MACs of one sequence.
        num_tokens: Sequence length; only MACs depend on it.
    """
    hidden, head = shape.hidden_size, shape.head_size
    if cost is CostKind.PARAMETERS:
        return 4 * hidden * head + 3 * head if kind is UnitKind.HEAD else 2 * hidden + 1
    if kind is UnitKind.HEAD:
        return 4 * num_tokens * hidden * head + 2 * num_tokens**2 * head
    return 2 * num_tokens * hidden


def encoder_cost(shape: EncoderShape, mask: Mask, num_tokens: float) -> EncoderCost:
    """Count the encoder's cost with only the units that `mask` keeps."""
    parameters, macs = 6.0 * shape.hidden_size * shape.num_layers, 0.0
    for kind in UnitKind:
        kept = mask.num_kept(kind)
        parameters += kept * unit_cost(kind, shape, CostKind.PARAMETERS, num_tokens)
        macs += kept * unit_cost(kind, shape, CostKind.MACS, num_tokens)
    return EncoderCost(int(parameters), macs, num_tokens)


@dataclass(frozen=True)
class Sparsities:
    """Removed / total at start, in [0, 1], of everything that it is stated of."""

    heads: float
    neurons: float
    encoder_parameters: float
    macs: float


def measure_sparsities(shape: EncoderShape, mask: Mask, num_tokens: float) -> Sparsities:
    """State the sparsity of `mask` in heads, neurons, encoder parameters and MACs."""
    before = encoder_cost(shape, Mask.dense(shape), num_tokens)
    after = encoder_cost(shape, mask, num_tokens)
    return Sparsities(
        heads=mask.sparsity(UnitKind.HEAD),
        neurons=mask.sparsity(UnitKind.NEURON),
        encoder_parameters=1.0 - after.parameters / before.parameters,
        macs=1.0 - after.macs / before.macs,
    )
