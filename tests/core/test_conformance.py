"""The heart of the project: gated == zeroed == compact == saved-and-reloaded, for every family."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distprune.core.anatomy import describe_anatomy
from distprune.core.compaction import compact
from distprune.core.cost import encoder_cost
from distprune.core.importance import measure_magnitude
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from tests.core.mask_strategies import make_mask, masks, narrow
from tests.core.zeroing import zero_units
from tests.model_families import (
    ATTENTIONS,
    CONFIGS,
    SHAPE,
    build_classifier,
    build_masked_lm,
    compute_logits,
    sample_batch,
)

DENSE = Mask.dense(SHAPE)
NO_HEADS = make_mask(~DENSE["head"], DENSE["neuron"])
NO_NEURONS = make_mask(DENSE["head"], ~DENSE["neuron"])
NOTHING = make_mask(~DENSE["head"], ~DENSE["neuron"])
SPARSE_ROW = np.arange(SHAPE.num_neurons) % 3 == 0
MIXED = make_mask(
    [[0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0]],
    [SPARSE_ROW, np.zeros(SHAPE.num_neurons), ~SPARSE_ROW],
)
"""Without heads, without neurons, and with some of both."""

every_model = pytest.mark.parametrize(
    ("family", "attention"), list(itertools.product(CONFIGS, ATTENTIONS))
)
EXAMPLES = settings(max_examples=12)

cached_classifier = functools.cache(build_classifier)
"""Shared by all examples of a test; `assert_unchanged` keeps that honest."""


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def assert_unchanged(model: nn.Module, family: str, attention: str) -> None:
    """The model still is, bit for bit, the one that its seed makes, without hooks."""
    fresh = build_classifier(family, attention)
    state, expected = model.state_dict(), fresh.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert str(model) == str(fresh)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(module.training for module in model.modules())


@every_model
@EXAMPLES
@given(mask=masks(SHAPE))
@example(mask=DENSE)
@example(mask=NO_HEADS)
@example(mask=NO_NEURONS)
@example(mask=NOTHING)
@example(mask=MIXED)
def test_masked_models_agree(
    family: str, attention: str, mask: Mask, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("conformance")
    model, batch = cached_classifier(family, attention), sample_batch(family)
    expected = compute_logits(zero_units(model, mask), batch)

    mask.save(folder / "mask.safetensors")
    loaded = Mask.load(folder / "mask.safetensors")
    with loaded.gate(model):
        assert_same(compute_logits(model, batch), expected)

    smaller = loaded.compact(model)
    assert_same(compute_logits(smaller, batch), expected)

    save_file(smaller.state_dict(), folder / "weights.safetensors")
    reloaded = mask.compact(build_classifier(family, attention, seed=1))
    reloaded.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
    assert torch.equal(compute_logits(reloaded, batch), compute_logits(smaller, batch))

    assert_unchanged(model, family, attention)


@every_model
@pytest.mark.parametrize("mask", [NO_HEADS, NO_NEURONS, NOTHING, MIXED])
def test_masks_show_in_the_logits(family: str, attention: str, mask: Mask) -> None:
    model, batch = build_classifier(family, attention), sample_batch(family)
    dense, smaller = compute_logits(model, batch), compute_logits(mask.compact(model), batch)
    assert (dense - smaller).abs().max() > 1e-2


@every_model
@EXAMPLES
@given(first=masks(SHAPE), second=masks(SHAPE))
@example(first=MIXED, second=NOTHING)
@example(first=NO_HEADS, second=NO_NEURONS)
def test_two_steps_equal_one(family: str, attention: str, first: Mask, second: Mask) -> None:
    model, batch = cached_classifier(family, attention), sample_batch(family)
    both = narrow(first, second)
    once = compact(model, both)
    half = compact(model, first)
    half_state = {name: tensor.clone() for name, tensor in half.state_dict().items()}
    twice = compact(half, both, live=first)
    assert torch.equal(compute_logits(twice, batch), compute_logits(once, batch))
    state, expected = twice.state_dict(), once.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert all(torch.equal(half.state_dict()[name], half_state[name]) for name in half_state)
    assert_unchanged(model, family, attention)


@pytest.mark.parametrize("family", CONFIGS)
@EXAMPLES
@given(mask=masks(SHAPE))
@example(mask=DENSE)
@example(mask=NOTHING)
def test_compact_counts_are_the_masks(family: str, mask: Mask) -> None:
    smaller = mask.compact(cached_classifier(family))
    anatomy = describe_anatomy(smaller)
    parameters = sum(
        parameter.numel() for layer in anatomy.layers for parameter in layer.parameters()
    )
    assert parameters == encoder_cost(SHAPE, mask, num_tokens=10).parameters
    for kind in UnitKind:
        assert anatomy.counts(kind) == tuple(mask[kind].sum(axis=1))
    for scores, kept in zip(measure_magnitude(smaller)[UnitKind.HEAD], mask["head"], strict=True):
        assert scores.shape == (kept.sum(),)


@every_model
def test_masked_lm_agrees(family: str, attention: str) -> None:
    model, batch = build_masked_lm(family, attention), sample_batch(family)
    expected = compute_logits(zero_units(model, MIXED), batch)
    with MIXED.gate(model):
        assert_same(compute_logits(model, batch), expected)
    assert_same(compute_logits(MIXED.compact(model), batch), expected)


@every_model
@pytest.mark.parametrize("mask", [MIXED, NOTHING])
def test_bf16_training_step_is_finite(family: str, attention: str, mask: Mask) -> None:
    model, batch = mask.compact(build_classifier(family, attention)).train(), sample_batch(family)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    assert all(
        torch.isfinite(gradient).all() for gradient in gradients.values() if gradient is not None
    )
    optimizer.step()
    after = model.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(after[name], before[name]) for name in before)
