"""Fast dropout and attention are what torch's are, for every family, dense and compact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distprune.core.compaction import compact
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.trial.work.cpu_gradients import (
    ATTENTION,
    FastDropout,
    draw_scales,
    fast_cpu_gradients,
)
from tests.model_families import CONFIGS, SHAPE, build_classifier, sample_batch

SIZES = {kind: SHAPE.units_per_layer(kind) for kind in UnitKind}


def set_dropout(model: nn.Module, probability: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def take_gradients(model: nn.Module, family: str) -> list[torch.Tensor]:
    model.zero_grad()
    model(**sample_batch(family)).logits.square().sum().backward()
    return [one.grad.clone() for one in model.parameters() if one.grad is not None]


@pytest.mark.parametrize("is_compact", [False, True])
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_without_dropout_nothing_changes(family: str, is_compact: bool) -> None:
    model = build_classifier(family)
    if is_compact:
        generator = np.random.default_rng(0)
        kept = {kind: generator.random((3, size)) < 0.6 for kind, size in SIZES.items()}
        kept[UnitKind.HEAD][1] = False
        model = compact(model, Mask(kept))
    set_dropout(model.train(), 0.0)
    expected = take_gradients(model, family)
    with fast_cpu_gradients(model):
        assert model.config._attn_implementation == ATTENTION
        found = take_gradients(model, family)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.dist(ours, theirs) <= 1e-5 * (1 + theirs.norm())


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_the_model_is_left_as_it_was(family: str) -> None:
    model = build_classifier(family).train()
    before = [(name, type(module)) for name, module in model.named_modules()]
    attention = model.config._attn_implementation
    with fast_cpu_gradients(model):
        assert not [module for module in model.modules() if type(module) is nn.Dropout]
        assert sum(isinstance(module, FastDropout) for module in model.modules()) > 3
    assert [(name, type(module)) for name, module in model.named_modules()] == before
    assert model.config._attn_implementation == attention


def test_attention_weights_are_dropped_in_training_only() -> None:
    model = build_classifier("bert")
    set_dropout(model, 0.5)
    with fast_cpu_gradients(model):
        logits = [model.train()(**sample_batch("bert")).logits for _ in range(2)]
        assert not torch.allclose(*logits)
        logits = [model.eval()(**sample_batch("bert")).logits for _ in range(2)]
        assert torch.equal(*logits)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.999999])
def test_dropout_keeps_the_expectation(probability: float) -> None:
    torch.manual_seed(0)
    scales = draw_scales(torch.empty(1001, 999), probability)
    dropped = (scales == 0).float().mean().item()
    assert dropped == pytest.approx(min(probability, 1 - 2**-16), abs=2e-3)
    (kept,) = scales[scales > 0].unique().tolist()
    if probability < 0.99:
        assert kept * (1 - dropped) == pytest.approx(1.0, abs=2e-3)
        assert kept == pytest.approx(1 / (1 - probability), rel=1e-4)


def test_neighbouring_draws_are_independent() -> None:
    torch.manual_seed(0)
    dropped = draw_scales(torch.empty(400_000), 0.3).eq(0).double()
    for distance in (1, 2, 3, 4):
        both = (dropped[:-distance] * dropped[distance:]).mean().item()
        assert both == pytest.approx(0.09, abs=3e-3)


def test_dropout_is_seeded() -> None:
    features, dropout = torch.ones(50), FastDropout(0.5)
    torch.manual_seed(3)
    first = dropout(features)
    torch.manual_seed(3)
    assert torch.equal(dropout(features), first)
    assert set(first.tolist()) == {0.0, 2.0}
    assert torch.equal(dropout.eval()(features), features)
