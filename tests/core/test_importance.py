"""Gradient importance against loops, finite differences and the sum of context times gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distprune.core.anatomy import describe_anatomy
from distprune.core.gating import apply_gates
from distprune.core.importance import Batch, measure_importance
from distprune.core.importance_scores import Criterion, Estimator, FloatArray
from distprune.core.units import UnitKind
from tests.model_families import CONFIGS, SHAPE, build_classifier, build_masked_lm, sample_batch

Scores = dict[UnitKind, FloatArray]
every_family = pytest.mark.parametrize("family", CONFIGS)
every_estimator = pytest.mark.parametrize("estimator", Estimator)


def cross_entropies(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return nn.functional.cross_entropy(logits, batch["labels"], reduction="none")


def word_losses(model: nn.Module, batch: Batch) -> Tensor:
    """A masked-language-model loss: each real token predicts itself, mean per example."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    real = batch["attention_mask"].bool()
    labels = batch["input_ids"].masked_fill(~real, -100)
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return losses.sum(1) / real.sum(1)


def measure(
    model: nn.Module,
    batches: Sequence[Batch],
    estimator: Estimator = Estimator.EXAMPLE,
    criterion: Criterion = Criterion.ABS_GRADIENT,
    losses: Callable[[nn.Module, Batch], Tensor] = cross_entropies,
) -> Scores:
    measured = measure_importance(model, batches, losses, criterion, estimator)
    return {kind: np.stack(layers) for kind, layers in measured.items()}


def assert_scores(actual: Scores, expected: Scores, rtol: float = 1e-4) -> None:
    for kind in UnitKind:
        scale = np.abs(expected[kind]).max()
        assert scale > 1e-4
        np.testing.assert_allclose(actual[kind], expected[kind], rtol=rtol, atol=rtol * scale)


def gate_gradients(model: nn.Module, batch: Batch) -> Scores:
    """Signed gradient of the mean loss with respect to plain gates [unit]."""
    gates = {
        kind: [
            torch.ones(count, requires_grad=True) for count in describe_anatomy(model).counts(kind)
        ]
        for kind in UnitKind
    }
    with apply_gates(model, gates):
        cross_entropies(model, batch).mean().backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    gradients: Scores = {}
    for kind, layers in gates.items():
        gradients[kind] = torch.stack([gradient_of(layer) for layer in layers]).numpy()
    return gradients


def gradient_of(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def split_examples(batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Make a batch of one of each example, without its padding."""
    lengths = batch["attention_mask"].sum(1).tolist()
    return [
        {
            "input_ids": batch["input_ids"][row : row + 1, :length],
            "attention_mask": batch["attention_mask"][row : row + 1, :length],
            "labels": batch["labels"][row : row + 1],
        }
        for row, length in enumerate(lengths)
    ]


def mean_scores(scores: Sequence[Scores], weights: Sequence[float] | None = None) -> Scores:
    return {
        kind: np.average([each[kind] for each in scores], axis=0, weights=weights)
        for kind in UnitKind
    }


@every_family
def test_example_equals_a_loop_over_examples(family: str) -> None:
    model, batch = build_classifier(family), sample_batch(family)
    looped = [gate_gradients(model, alone) for alone in split_examples(batch)]
    expected = mean_scores([{kind: np.abs(each[kind]) for kind in UnitKind} for each in looped])
    assert_scores(measure(model, [batch]), expected)


@every_family
def test_fisher_is_the_mean_square_of_examples(family: str) -> None:
    model, batch = build_classifier(family), sample_batch(family)
    looped = [gate_gradients(model, alone) for alone in split_examples(batch)]
    expected = mean_scores([{kind: each[kind] ** 2 for kind in UnitKind} for each in looped])
    assert_scores(measure(model, [batch], criterion=Criterion.FISHER), expected)


@every_family
def test_batch_is_the_gradient_of_the_mean_loss(family: str) -> None:
    model = build_classifier(family)
    first, second = sample_batch(family), sample_batch(family, lengths=(6, 2), seed=5)
    expected = {kind: np.abs(each) for kind, each in gate_gradients(model, first).items()}
    assert_scores(measure(model, [first], Estimator.BATCH), expected)
    other = {kind: np.abs(each) for kind, each in gate_gradients(model, second).items()}
    # A batch counts by its examples: 4 and 2.
    assert_scores(
        measure(model, [first, second], Estimator.BATCH),
        mean_scores([expected, other], weights=[4.0, 2.0]),
    )


@every_family
def test_example_equals_finite_differences(family: str) -> None:
    model, batch = build_classifier(family).double(), sample_batch(family)
    measured = measure(model, [batch])
    step = 1e-4

    def losses_at(kind: UnitKind, layer: int, unit: int, value: float) -> Tensor:
        units = SHAPE.units_per_layer(kind)
        gates = [torch.ones(units, dtype=torch.float64) for _ in range(SHAPE.num_layers)]
        gates[layer][unit] = value
        with torch.no_grad(), apply_gates(model, {kind: gates}):
            return cross_entropies(model, batch)

    for kind, stride in ((UnitKind.HEAD, 1), (UnitKind.NEURON, 7)):
        for layer in range(SHAPE.num_layers):
            for unit in range(0, SHAPE.units_per_layer(kind), stride):
                above = losses_at(kind, layer, unit, 1.0 + step)
                below = losses_at(kind, layer, unit, 1.0 - step)
                expected = ((above - below) / (2 * step)).abs().mean().item()
                assert measured[kind][layer, unit] == pytest.approx(expected, rel=1e-4, abs=1e-7)


@every_family
def test_scores_are_sums_of_context_times_gradient(family: str) -> None:
    model, batch = build_classifier(family), sample_batch(family)
    parts = describe_anatomy(model).parts
    contexts: dict[tuple[UnitKind, int], Tensor] = {}

    def keep(key: tuple[UnitKind, int]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            inputs[0].retain_grad()
            contexts[key] = inputs[0]

        return hook

    for kind in UnitKind:
        for layer, part in enumerate(parts):
            part.gated(kind).register_forward_pre_hook(keep((kind, layer)))
    cross_entropies(model, batch).sum().backward()  # type: ignore[no-untyped-call]
    per_token: dict[UnitKind, Tensor] = {}
    for kind in UnitKind:
        stacked = torch.stack(
            [contexts[kind, layer] * gradient_of(contexts[kind, layer]) for layer in range(3)]
        ).detach()
        units = SHAPE.units_per_layer(kind)
        per_token[kind] = stacked.reshape(*stacked.shape[:3], units, -1).sum(-1)
    num_tokens = batch["attention_mask"].sum()
    example = {kind: each.sum(2).abs().mean(1).numpy() for kind, each in per_token.items()}
    token = {
        kind: (each.abs().sum((1, 2)) / num_tokens).numpy() for kind, each in per_token.items()
    }
    fresh = build_classifier(family)
    assert_scores(measure(fresh, [batch]), example)
    assert_scores(measure(fresh, [batch], Estimator.TOKEN), token)


@every_family
@every_estimator
def test_padding_has_no_effect(family: str, estimator: Estimator) -> None:
    model = build_classifier(family)
    expected = measure(model, [sample_batch(family)], estimator)
    assert_scores(measure(model, [sample_batch(family, padding=11)], estimator), expected)


@every_family
@every_estimator
def test_padding_has_no_effect_on_a_language_model(family: str, estimator: Estimator) -> None:
    model = build_masked_lm(family)
    short, padded = sample_batch(family), sample_batch(family, padding=11)
    expected = measure(model, [short], estimator, losses=word_losses)
    assert_scores(measure(model, [padded], estimator, losses=word_losses), expected)


@every_family
@every_estimator
def test_order_of_batches_has_no_effect(family: str, estimator: Estimator) -> None:
    model = build_classifier(family)
    batches = [sample_batch(family, lengths=(9, 4, 6)[: 1 + seed], seed=seed) for seed in range(3)]
    forward, backward = (measure(model, order, estimator) for order in (batches, batches[::-1]))
    assert_scores(forward, backward, rtol=1e-12)


@pytest.mark.parametrize("estimator", [Estimator.EXAMPLE, Estimator.TOKEN])
def test_grouping_into_batches_has_no_effect(estimator: Estimator) -> None:
    model, batch = build_classifier("bert"), sample_batch("bert")
    alone = measure(model, split_examples(batch), estimator)
    assert_scores(measure(model, [batch], estimator), alone)


@every_family
def test_token_sum_is_at_least_the_example_sum(family: str) -> None:
    model, batch = build_classifier(family), sample_batch(family)
    example = measure(model, [batch], Estimator.EXAMPLE)
    token = measure(model, [batch], Estimator.TOKEN)
    num_examples, num_tokens = len(batch["labels"]), int(batch["attention_mask"].sum())
    for kind in UnitKind:
        difference = token[kind] * num_tokens - example[kind] * num_examples
        assert (difference >= -1e-6).all()
        assert difference.max() > 1e-3
