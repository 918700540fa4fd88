"""Batches to try a model on: random tokens of different lengths, padded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FIRST_TOKEN = 5
"""Below it are special tokens in most vocabularies."""


def draw_batch(model: Any, num_examples: int, num_tokens: int, seed: int = 0) -> dict[str, Tensor]:
    """Draw random tokens; the first example fills the length, the others are padded.

    Args:
        model: Its configuration has the vocabulary and the padding token.
        num_examples: Examples.
        num_tokens: Length of the longest.
        seed: Seed of the tokens and lengths.

    Returns:
        `input_ids` and `attention_mask`, [example, token], and `token_type_ids` where the model
        takes them.
    """
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    first = min(FIRST_TOKEN, config.vocab_size - 1)
    shape = (num_examples, num_tokens)
    tokens = torch.randint(first, config.vocab_size, shape, generator=generator)
    lengths = torch.randint(1, num_tokens + 1, (num_examples, 1), generator=generator)
    lengths[0] = num_tokens
    is_real = torch.arange(num_tokens) < lengths
    tokens = tokens.masked_fill(~is_real, config.pad_token_id or 0)
    batch = {"input_ids": tokens, "attention_mask": is_real.long()}
    if takes_token_types(model):
        batch["token_type_ids"] = torch.zeros_like(tokens)
    return batch


def takes_token_types(model: Any) -> bool:
    """Say whether a model tells two texts apart by token types."""
    return getattr(model.config, "type_vocab_size", 0) > 1
