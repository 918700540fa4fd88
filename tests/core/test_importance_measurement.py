"""Importance on compact models, magnitudes by hand, and what a measurement leaves as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distprune.core.importance import (
    Batch,
    measure_importance,
    measure_magnitude,
    scatter_importance,
)
from distprune.core.importance_scores import Criterion, Estimator
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from tests.core.mask_strategies import make_mask
from tests.core.zeroing import zero_units
from tests.model_families import CONFIGS, SHAPE, build_classifier, sample_batch

SOME = make_mask(
    [[0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]],
    [np.arange(20) % 3 == 0, np.zeros(20), np.arange(20) < 19],
)
"""A layer without heads, a layer without neurons, and mixed ones."""


def cross_entropies(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return nn.functional.cross_entropy(logits, batch["labels"], reduction="none")


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("estimator", Estimator)
def test_compact_scores_are_those_of_the_zeroed_model(family: str, estimator: Estimator) -> None:
    model, batch = build_classifier(family), sample_batch(family)
    arguments = ([batch], cross_entropies, Criterion.ABS_GRADIENT, estimator)
    compacted = scatter_importance(measure_importance(SOME.compact(model), *arguments), SOME)
    zeroed = measure_importance(zero_units(model, SOME), *arguments)
    for kind in UnitKind:
        expected = np.stack(zeroed[kind])
        np.testing.assert_allclose(
            compacted[kind][SOME[kind]], expected[SOME[kind]], rtol=1e-4, atol=1e-6
        )
        assert compacted[kind][SOME[kind]].min() > 0.0
        assert (compacted[kind][~SOME[kind]] == 0.0).all()


def test_model_without_units_has_no_scores() -> None:
    dense = Mask.dense(SHAPE)
    model = make_mask(~dense["head"], ~dense["neuron"]).compact(build_classifier("bert"))
    measured = measure_importance(
        model,
        [sample_batch("bert")],
        cross_entropies,
        Criterion.ABS_GRADIENT,
        Estimator.EXAMPLE,
    )
    assert all(len(scores) == 0 for layers in measured.values() for scores in layers)


def test_scatter_brings_scores_to_their_units() -> None:
    live = make_mask([[0, 1, 1], [0, 0, 0]], [[1, 0], [1, 1]])
    measured = {
        UnitKind.HEAD: [np.array([3.0, 5.0]), np.zeros(0)],
        UnitKind.NEURON: [np.array([7.0]), np.array([1.0, 2.0])],
    }
    scattered = scatter_importance(measured, live)
    assert scattered["head"].tolist() == [[0.0, 3.0, 5.0], [0.0, 0.0, 0.0]]
    assert scattered["neuron"].tolist() == [[7.0, 0.0], [1.0, 2.0]]


def test_magnitude_by_hand() -> None:
    model = build_classifier("bert")
    layer = model.base_model.encoder.layer[1]
    attention = layer.attention.self
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        # Head 2 owns rows (columns of the output projection) 12 to 17.
        for value, projection in enumerate((attention.query, attention.key, attention.value), 1):
            projection.weight[12, 0] = value
            projection.bias[17] = 10.0 * value
        layer.attention.output.dense.weight[3, 15] = 100.0
        layer.attention.output.dense.bias.fill_(9.0)
        layer.intermediate.dense.weight[4, 23] = 3.0
        layer.intermediate.dense.bias[4] = 4.0
        layer.output.dense.weight[0, 4] = 12.0
        layer.output.dense.bias.fill_(9.0)
    magnitude = measure_magnitude(model)
    expected_heads = np.zeros(4)
    expected_heads[2] = np.sqrt((1 + 4 + 9) * 101 + 10_000)
    expected_neurons = np.zeros(20)
    expected_neurons[4] = 13.0
    np.testing.assert_allclose(magnitude[UnitKind.HEAD][1], expected_heads)
    np.testing.assert_allclose(magnitude[UnitKind.NEURON][1], expected_neurons)


@pytest.mark.parametrize("family", CONFIGS)
def test_magnitude_of_a_compact_model_is_that_of_its_units(family: str) -> None:
    model = build_classifier(family)
    compacted = measure_magnitude(SOME.compact(model))
    dense = measure_magnitude(model)
    for kind in UnitKind:
        for layer in range(SHAPE.num_layers):
            kept = SOME[kind][layer]
            np.testing.assert_allclose(compacted[kind][layer], dense[kind][layer][kept])


def freeze_some(model: Any) -> None:
    """Freeze the embeddings and put one layer's dropout to rest, as partial fine-tuning does."""
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("embeddings" not in name)
    model.base_model.get_submodule("encoder.layer.1").eval()


def describe_state(model: nn.Module) -> tuple[list[bool], list[bool], list[Tensor]]:
    return (
        [parameter.requires_grad for parameter in model.parameters()],
        [module.training for module in model.modules()],
        [parameter.detach().clone() for parameter in model.parameters()],
    )


@pytest.mark.parametrize("fails", [False, True])
def test_model_is_left_as_it_was(fails: bool) -> None:
    model, batch = build_classifier("bert"), sample_batch("bert")
    freeze_some(model)
    flags, modes, values = describe_state(model)
    seen: list[bool] = []

    def losses(model: nn.Module, batch: Batch) -> Tensor:
        seen.append(any(module.training for module in model.modules()))
        seen.append(any(parameter.requires_grad for parameter in model.parameters()))
        if fails:
            raise RuntimeError("inside the measurement")
        return cross_entropies(model, batch)

    arguments = (model, [batch], losses, Criterion.ABS_GRADIENT, Estimator.EXAMPLE)
    if fails:
        with pytest.raises(RuntimeError, match="inside the measurement"):
            measure_importance(*arguments)
    else:
        measure_importance(*arguments)
    assert seen == [False, False]
    new_flags, new_modes, new_values = describe_state(model)
    assert new_flags == flags
    assert new_modes == modes
    assert len(set(flags)) == len(set(modes)) == 2
    assert all(torch.equal(old, new) for old, new in zip(values, new_values, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_dropout_is_off() -> None:
    model, batch = build_classifier("bert").train(), sample_batch("bert")
    arguments = ([batch], cross_entropies, Criterion.ABS_GRADIENT, Estimator.EXAMPLE)
    first, second = (measure_importance(model, *arguments) for _ in range(2))
    for kind in UnitKind:
        assert np.array_equal(np.stack(first[kind]), np.stack(second[kind]))


def test_gradients_of_the_optimizer_are_left_alone() -> None:
    model, batch = build_classifier("bert"), sample_batch("bert")
    cross_entropies(model, batch).sum().backward()  # type: ignore[no-untyped-call]
    before = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    measure_importance(model, [batch], cross_entropies, Criterion.FISHER, Estimator.TOKEN)
    assert before
    for name, parameter in model.named_parameters():
        if name in before:
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, before[name])
