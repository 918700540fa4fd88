"""Dropout and attention that a CPU computes fast where gradients are taken.

torch draws dropout element by element from a serial generator. Its attention is fast on CPUs
without gradients only: dropout sends it to float32 arithmetic, and its own backward pass is slow.
Here dropout draws 16 bits an element, four at a time, and attention is the textbook's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

ATTENTION = "distprune_cpu_gradients"
"""Name of the attention in transformers' table of implementations."""

REPLACED_ATTENTION = "sdpa"

BITS = 16
DRAWS_AT_ONCE = 64 // BITS


@contextmanager
def fast_cpu_gradients(model: Any) -> Iterator[None]:
    """Let a transformers model on a CPU compute dropout and attention fast inside the block.

    A model on another device stays as it is. Without gradients nothing changes either.
    """
    if next(model.parameters()).device.type != "cpu":
        yield
        return
    replaced = _replace_dropout(model)
    attention = model.config._attn_implementation
    if attention == REPLACED_ATTENTION:
        model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        for parent, name, module in replaced:
            setattr(parent, name, module)
        if attention == REPLACED_ATTENTION:
            model.set_attn_implementation(attention)


class FastDropout(nn.Dropout):
    """Dropout whose probability is a multiple of 2⁻¹⁶; the expectation stays exact."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, some of them zero, the others scaled up, while training."""
        if not self.training or self.p == 0.0:
            return features
        return features * draw_scales(features, self.p)


def draw_scales(features: Tensor, probability: float) -> Tensor:
    """Draw the factor of each feature: 0, or what keeps the expectation.

    Args:
        features: Gives shape and dtype.
        probability: Probability of 0, in [0, 1), rounded to a multiple of 2⁻¹⁶ below 1.
    """
    levels = 1 << BITS
    num_dropped = min(round(probability * levels), levels - 1)
    words = torch.empty(-(-features.numel() // DRAWS_AT_ONCE), dtype=torch.int64)
    words.random_(torch.iinfo(torch.int64).min, None)
    draws = words.view(torch.int16)[: features.numel()].view(features.shape)
    is_kept = draws >= num_dropped - levels // 2
    return is_kept.to(features.dtype).mul_(levels / (levels - num_dropped))


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' attention functions do; without gradients, by `sdpa` itself.

    Args:
        module: The attention layer.
        query: [batch, head, token, width]; `key` and `value` likewise.
        key: See `query`.
        value: See `query`.
        attention_mask: bool, broadcastable to [batch, head, token, token], True = attend.
        dropout: Probability that an attention weight is dropped.
        scaling: Factor of the scores; None = width ** -0.5.
        options: For `sdpa`.

    Returns:
        [batch, token, head, width], and None: the weights are not kept.
    """
    if not torch.is_grad_enabled():
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
        return output, None
    scores = query @ key.transpose(-1, -2)
    scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32)
    if dropout > 0.0:
        weights = weights * draw_scales(weights, dropout)
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


def _replace_dropout(model: nn.Module) -> list[tuple[nn.Module, str, nn.Dropout]]:
    """Put fast dropout in the place of torch's, and return what was where."""
    replaced: list[tuple[nn.Module, str, nn.Dropout]] = []
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module) is nn.Dropout:
                setattr(parent, name, FastDropout(module.p).train(module.training))
                replaced.append((parent, name, module))
    return replaced


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
