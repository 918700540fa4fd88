"""Importance of heads and neurons, measured on a model through the gradients of its gates.

Michel et al. 2019 in their released code, with the estimator made explicit. Gates have a batch
axis, so one backward pass gives one gradient per example; only the gates get gradients; the
accumulators are float64. The gates are new for each batch: accumulating `|running gradient|` is a
known error of published scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from distprune.core.anatomy import Anatomy, describe_anatomy
from distprune.core.gating import apply_gates
from distprune.core.importance_scores import Criterion, Estimator, FloatArray, Importance
from distprune.core.mask import Mask
from distprune.core.units import UnitKind

Batch = Mapping[str, Tensor]
ExampleLosses = Callable[[nn.Module, Batch], Tensor]
"""Loss of each example of a batch, [batch]; 'attention_mask' [batch, token] marks real tokens."""


def measure_importance(
    model: nn.Module,
    batches: Iterable[Batch],
    example_losses: ExampleLosses,
    criterion: Criterion,
    estimator: Estimator,
) -> dict[UnitKind, list[FloatArray]]:
    """Measure the gradient importance of every unit that `model` has.

    The model is put in evaluation mode for the measurement and is left as it was.

    Args:
        model: Dense or compact model of a supported family.
        batches: Inputs; each has 'attention_mask' [batch, token], 1 = a real token.
        example_losses: Loss of each example, [batch].
        criterion: `abs_gradient`: mean of |gradient|. `fisher`: mean of its square.
        estimator: `example`: one gradient per example. `token`: one per token, averaged over real
            tokens. `batch`: one of each batch's mean loss.

    Returns:
        For each kind one array [units of the layer] per layer, >= 0, higher = keep.
    """
    anatomy = describe_anatomy(model)
    device = next(model.parameters()).device
    totals = {
        kind: [
            torch.zeros(count, dtype=torch.float64, device=device) for count in anatomy.counts(kind)
        ]
        for kind in UnitKind
    }
    weight = 0.0
    with _evaluation_mode(model):
        for batch in batches:
            gates = _make_gates(anatomy, batch, estimator)
            with apply_gates(model, gates, _GateOfOne.apply):
                losses = example_losses(model, batch).float()
            loss = losses.mean() if estimator is Estimator.BATCH else losses.sum()
            _accumulate(totals, gates, loss, criterion, len(losses), estimator)
            weight += _weight(batch, losses, estimator)
    return {
        kind: [(total / max(weight, 1.0)).cpu().numpy() for total in layer_totals]
        for kind, layer_totals in totals.items()
    }


def measure_magnitude(model: nn.Module) -> dict[UnitKind, list[FloatArray]]:
    """Return the l2 norm of the weights and biases that go when a unit is removed.

    Returns:
        For each kind one array [units of the layer] per layer, higher = keep.
    """
    anatomy = describe_anatomy(model)
    heads, neurons = [], []
    for layer, part in zip(anatomy.layers, anatomy.parts, strict=True):
        heads.append(_head_norms(anatomy, layer, part.num_units(UnitKind.HEAD)))
        squares = _row_squares(part.first) + part.second.weight.detach().double().square().sum(0)
        neurons.append(squares.sqrt().cpu().numpy())
    return {UnitKind.HEAD: heads, UnitKind.NEURON: neurons}


def scatter_importance(measured: Mapping[UnitKind, list[FloatArray]], live: Mask) -> Importance:
    """Bring scores of a compact model to the coordinates of the dense one; lost units get zero."""
    scores = {}
    for kind in UnitKind:
        full = np.zeros(live[kind].shape)
        for layer, layer_scores in enumerate(measured[kind]):
            full[layer, live[kind][layer]] = layer_scores
        scores[kind] = full
    return Importance(scores)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch off dropout and parameter gradients inside the block."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


class _GateOfOne(torch.autograd.Function):
    """A gate whose value is one: it changes nothing, and only its gradient is computed.

    Summed in float32 or better, under autocast too.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, layer_gate: Tensor, unit_width: int) -> Tensor:
        """Return the features as they are."""
        ctx.save_for_backward(features)
        ctx.gate_shape, ctx.unit_width = layer_gate.shape, unit_width
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Pass the gradient on; that of the gate is its product with the features, summed."""
        (gradient,), (features,) = gradients, ctx.saved_tensors
        precision = torch.promote_types(features.dtype, torch.float32)
        # Converted first: torch multiplies mixed types several times slower.
        products = gradient.to(precision) * features.to(precision)
        if ctx.unit_width > 1:
            products = products.unflatten(-1, (-1, ctx.unit_width)).sum(-1)
        return gradient, products.sum_to_size(ctx.gate_shape), None


def _make_gates(
    anatomy: Anatomy, batch: Batch, estimator: Estimator
) -> dict[UnitKind, list[Tensor]]:
    attention_mask = batch["attention_mask"]
    num_examples, num_tokens = attention_mask.shape
    leading = {
        Estimator.EXAMPLE: (num_examples, 1),
        Estimator.TOKEN: (num_examples, num_tokens),
        Estimator.BATCH: (),
    }[estimator]
    return {
        kind: [
            torch.ones((*leading, count), device=attention_mask.device, requires_grad=True)
            for count in anatomy.counts(kind)
        ]
        for kind in UnitKind
    }


def _accumulate(
    totals: dict[UnitKind, list[Tensor]],
    gates: Mapping[UnitKind, list[Tensor]],
    loss: Tensor,
    criterion: Criterion,
    num_examples: int,
    estimator: Estimator,
) -> None:
    """Add the batch's gradient magnitudes to `totals`, in place."""
    pairs = [
        (total, layer_gate)
        for kind in UnitKind
        for total, layer_gate in zip(totals[kind], gates[kind], strict=True)
        if layer_gate.numel()
    ]
    if not pairs:
        return
    gradients = torch.autograd.grad(loss, [layer_gate for _, layer_gate in pairs])
    for (total, _), gradient in zip(pairs, gradients, strict=True):
        magnitude = gradient.double()
        magnitude = magnitude.abs() if criterion is Criterion.ABS_GRADIENT else magnitude.square()
        summed = magnitude.reshape(-1, magnitude.shape[-1]).sum(0)
        # A batch counts by its examples, so that a short last batch does not weigh as a full one.
        total += summed * num_examples if estimator is Estimator.BATCH else summed


def _weight(batch: Batch, losses: Tensor, estimator: Estimator) -> float:
    if estimator is Estimator.TOKEN:
        return float(batch["attention_mask"].sum())
    return float(len(losses))


def _head_norms(anatomy: Anatomy, layer: nn.Module, num_heads: int) -> FloatArray:
    family = anatomy.family
    if num_heads == 0:
        return np.zeros(0)
    attention = layer.get_submodule(family.attention)
    paths = (family.query, family.key, family.value)
    inputs = [_row_squares(cast(nn.Linear, attention.get_submodule(path))) for path in paths]
    output = cast(nn.Linear, layer.get_submodule(family.output))
    squares = torch.stack([*inputs, output.weight.detach().double().square().sum(0)]).sum(0)
    norms: FloatArray = squares.reshape(num_heads, -1).sum(1).sqrt().cpu().numpy()
    return norms


def _row_squares(linear: nn.Linear) -> Tensor:
    """Sum the squares of each output row, bias included, [rows]."""
    squares = linear.weight.detach().double().square().sum(1)
    bias = cast(Tensor | None, linear.bias)
    return squares if bias is None else squares + bias.detach().double().square()
