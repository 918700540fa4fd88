"""Compaction beyond conformance: what it refuses, what it keeps, what it leaves alone."""

from __future__ import annotations

import pytest
import torch

from distprune.core.compact_model import EmptyAttention
from distprune.core.compaction import compact
from distprune.core.mask import Mask
from distprune.core.units import EncoderShape
from distprune.errors import MaskError
from tests.core.mask_strategies import make_mask
from tests.model_families import CONFIGS, SHAPE, build_classifier, compute_logits, sample_batch

DENSE = Mask.dense(SHAPE)
NOTHING = make_mask(~DENSE["head"], ~DENSE["neuron"])
SMALLER = make_mask([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], DENSE["neuron"])


def test_mask_of_another_shape_is_refused() -> None:
    other = Mask.dense(EncoderShape(3, 6, 20, 24, 4))
    with pytest.raises(MaskError, match="3 layers of 6 heads; the model has heads per layer"):
        compact(build_classifier("bert"), other)


def test_mask_of_other_depth_is_refused() -> None:
    # Layers and heads swapped: the product is the same, the mask is not.
    swapped = Mask.dense(EncoderShape(4, 3, 20, 24, 8))
    with pytest.raises(MaskError, match="4 layers of 3 heads"):
        compact(build_classifier("bert"), swapped)


def test_unit_that_is_gone_cannot_come_back() -> None:
    smaller = compact(build_classifier("bert"), SMALLER)
    with pytest.raises(MaskError, match="keeps units that the compact model has lost"):
        compact(smaller, DENSE, live=SMALLER)


def test_compact_model_needs_its_live_mask() -> None:
    smaller = compact(build_classifier("bert"), SMALLER)
    with pytest.raises(MaskError, match="made for 3 layers of 4 heads"):
        compact(smaller, NOTHING)


def test_live_mask_of_another_model_is_refused() -> None:
    # A dense model taken for a compact one would lose other units than the mask says.
    with pytest.raises(MaskError, match=r"live mask: keeps \(4, 3, 4\) heads per layer"):
        compact(build_classifier("bert"), NOTHING, live=SMALLER)


def test_dense_mask_copies_the_model() -> None:
    model = build_classifier("bert")
    copied = compact(model, DENSE)
    shared = {parameter.data_ptr() for parameter in model.parameters()}
    assert all(parameter.data_ptr() not in shared for parameter in copied.parameters())


@pytest.mark.parametrize("family", CONFIGS)
def test_weights_are_not_shared_with_the_compact_model(family: str) -> None:
    model, batch = build_classifier(family), sample_batch(family)
    smaller = compact(model, SMALLER)
    before = compute_logits(model, batch)
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.zero_()
    assert torch.equal(compute_logits(model, batch), before)


@pytest.mark.parametrize("family", CONFIGS)
def test_training_mode_and_frozen_parameters_are_kept(family: str) -> None:
    model = build_classifier(family).train().requires_grad_(False)
    smaller = compact(model, SMALLER)
    assert all(module.training for module in smaller.modules())
    assert not any(parameter.requires_grad for parameter in smaller.parameters())


@pytest.mark.parametrize("family", CONFIGS)
def test_empty_layer_keeps_its_output_bias(family: str) -> None:
    smaller = compact(build_classifier(family), NOTHING)
    attentions = [m for m in smaller.modules() if isinstance(m, EmptyAttention)]
    assert len(attentions) == SHAPE.num_layers
    biases = [
        name
        for name, tensor in smaller.state_dict().items()
        if name.removesuffix(".weight") != name and tensor.numel() == 0
    ]
    # Output projection, first and second FFN map of each layer; each weight has its bias beside it.
    assert len(biases) == 3 * SHAPE.num_layers
    assert all(name.replace(".weight", ".bias") in smaller.state_dict() for name in biases)


@pytest.mark.parametrize("family", CONFIGS)
def test_attributes_follow_the_heads(family: str) -> None:
    # transformers 5 reshapes by -1 and does not look; other releases and exporters do.
    smaller = compact(build_classifier(family), SMALLER)
    head_count = "n_heads" if family == "distilbert" else "num_attention_heads"
    attentions = [module for module in smaller.modules() if hasattr(module, head_count)]
    assert [getattr(module, head_count) for module in attentions] == [4, 3, 4]
    widths = [module.all_head_size for module in attentions if hasattr(module, "all_head_size")]
    assert widths == ([] if family == "distilbert" else [24, 18, 24])


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("mask", [SMALLER, NOTHING])
def test_weights_keep_their_names(family: str, mask: Mask) -> None:
    model = build_classifier(family)
    assert set(compact(model, mask).state_dict()) <= set(model.state_dict())


def test_compaction_spends_no_random_numbers() -> None:
    model = build_classifier("bert")
    state = torch.get_rng_state()
    compact(model, SMALLER)
    assert torch.equal(torch.get_rng_state(), state)


def test_precision_of_the_weights_is_kept() -> None:
    smaller = compact(build_classifier("bert").double(), SMALLER)
    assert {parameter.dtype for parameter in smaller.parameters()} == {torch.float64}
