"""Without the tokens that no head reads, logits and gradients are the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distprune.core.anatomy import describe_anatomy
from distprune.core.compaction import compact
from distprune.core.first_token import only_first_token
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from tests.model_families import CONFIGS, SHAPE, build_classifier, sample_batch


def run(model: nn.Module, family: str) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    logits = model(**sample_batch(family)).logits
    logits.square().sum().backward()
    gradients = [one.grad.clone() for one in model.parameters() if one.grad is not None]
    return logits.detach(), gradients


@pytest.mark.parametrize("last_heads", [None, 2, 0])
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_logits_and_gradients_are_the_same(family: str, last_heads: int | None) -> None:
    model = build_classifier(family)
    if last_heads is not None:
        kept = {
            kind: np.random.default_rng(0).random((3, SHAPE.units_per_layer(kind))) < 0.6
            for kind in UnitKind
        }
        kept[UnitKind.HEAD][-1] = np.arange(4) < last_heads
        model = compact(model, Mask(kept))
    logits, gradients = run(model, family)
    with only_first_token(model):
        short_logits, short_gradients = run(model, family)
    torch.testing.assert_close(short_logits, logits, rtol=1e-5, atol=1e-5)
    for short, full in zip(short_gradients, gradients, strict=True):
        assert torch.dist(short, full) <= 1e-5 * (1 + full.norm())


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_the_last_layer_sees_one_token(family: str) -> None:
    model = build_classifier(family)
    seen = []
    last = describe_anatomy(model).parts[-1].second
    last.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    num_tokens = sample_batch(family)["input_ids"].shape[1]
    with only_first_token(model):
        model(**sample_batch(family))
    model(**sample_batch(family))
    assert seen == [num_tokens if family == "distilbert" else 1, num_tokens]
