"""The certificate of an exported model: that it computes what it should, and what it costs.

Every export checks itself before it is handed over. Differences are between logits, in float32, on
random batches of several lengths with padding. The gated model is the dense one with the exported
weights, and random weights where units were removed; the others are read back from the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from distprune.core.anatomy import describe_anatomy
from distprune.core.cost import encoder_cost
from distprune.core.expansion import expand
from distprune.core.gating import gate
from distprune.core.mask import Mask
from distprune.deployment.example_batches import draw_batch
from distprune.deployment.machine import describe_machine, describe_versions
from distprune.errors import ExportError

SCHEMA = "distprune.certificate/1"
FILE = "certificate.json"

TOLERANCE = 1e-5
"""Largest difference of float32 logits, relative to their size where that is above one."""
ONNX_TOLERANCE = 1e-4
"""The same for another runtime, whose kernels add up in another order."""

SHAPES = ((1, 1), (1, 7), (4, 16), (3, 33))
"""Examples and tokens of the batches that are compared; longer than a model allows are cut."""

Logits = Callable[[Mapping[str, Tensor]], Tensor]
"""Computes logits [example, label] of a batch."""


@dataclass(frozen=True)
class Agreement:
    """How far two ways to compute the model are apart.

    Attributes:
        first: Name of one, for instance `gated`.
        second: Name of the other.
        largest_difference: Largest difference of a logit, relative to the largest logit where that
            is above one.
        tolerance: Largest that is accepted; 0 = equal bits.
    """

    first: str
    second: str
    largest_difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Say whether the difference is accepted; one that is no number is not."""
        return self.largest_difference <= self.tolerance


@dataclass(frozen=True)
class Size:
    """What a model holds and computes.

    Attributes:
        parameters: All parameters.
        encoder_parameters: Parameters of the encoder layers.
        encoder_macs: Multiply-accumulates of the encoder layers for one example.
        num_tokens: Tokens of that example.
    """

    parameters: int
    encoder_parameters: int
    encoder_macs: float
    num_tokens: float


@dataclass(frozen=True)
class Certificate:
    """What was checked and measured of an exported model.

    Attributes:
        agreements: Comparisons of ways to compute it.
        dense: Size before.
        compact: Size after.
        latency: Measured latencies beside the dense model, with their settings; empty = not
            measured.
        versions: Of the libraries.
        machine: What it was checked and measured on.
    """

    agreements: Sequence[Agreement]
    dense: Size
    compact: Size
    latency: Sequence[Mapping[str, Any]]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]

    def to_json(self) -> str:
        """Return the certificate as JSON text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"


def certify(
    model: Any,
    mask: Mask,
    others: Mapping[str, tuple[Logits, float]],
    num_tokens: float,
    latency: Sequence[Mapping[str, Any]] = (),
) -> Certificate:
    """Compare a compact model with its gated dense form and with what was read back from files.

    Args:
        model: The compact model, in evaluation mode.
        mask: The mask that it was compacted to.
        others: Further ways to compute it, by name, each with the largest difference accepted.
        num_tokens: Tokens of an example, for MACs.
        latency: Measured latencies.

    Raises:
        ExportError: Two of them differ by more than is accepted.
    """
    dense = expand(model, mask)
    agreements = [_compare_gated(model, dense, mask)]
    agreements += [
        _compare("compact", model_logits(model), name, logits, tolerance, model)
        for name, (logits, tolerance) in others.items()
    ]
    for agreement in agreements:
        if not agreement.holds:
            raise ExportError(
                f"export: {agreement.first} and {agreement.second} differ by "
                f"{agreement.largest_difference:.2g}, and {agreement.tolerance:.2g} is accepted; "
                "nothing was written; please report this model"
            )
    return Certificate(
        agreements=tuple(agreements),
        dense=measure_size(dense, Mask.dense(describe_anatomy(dense).shape()), num_tokens, dense),
        compact=measure_size(model, mask, num_tokens, dense),
        latency=tuple(latency),
        versions=describe_versions(),
        machine=asdict(describe_machine()),
    )


def measure_size(model: Any, mask: Mask, num_tokens: float, dense: Any) -> Size:
    """Count a model's parameters, and its encoder's cost under `mask`."""
    cost = encoder_cost(describe_anatomy(dense).shape(), mask, num_tokens)
    return Size(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        encoder_parameters=cost.parameters,
        encoder_macs=cost.macs,
        num_tokens=num_tokens,
    )


def model_logits(model: Any) -> Logits:
    """Return the function that computes a torch model's logits, without gradients."""

    def compute(batch: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(**batch).logits
        return logits

    return compute


def _compare_gated(model: Any, dense: Any, mask: Mask) -> Agreement:
    with gate(dense, mask):
        return _compare(
            "gated", model_logits(dense), "compact", model_logits(model), TOLERANCE, model
        )


def _compare(
    first: str, logits: Logits, second: str, others: Logits, tolerance: float, model: Any
) -> Agreement:
    longest = model.config.max_position_embeddings // 2
    largest = 0.0
    for num_examples, num_tokens in SHAPES:
        batch = draw_batch(model, num_examples, min(num_tokens, longest))
        expected, actual = logits(batch), others(batch)
        difference = (expected - actual).abs().max() / expected.abs().max().clamp(min=1.0)
        # Not max(): it passes over what is no number.
        largest = float(difference) if not float(difference) <= largest else largest
    return Agreement(first, second, largest, tolerance)
