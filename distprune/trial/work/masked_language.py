"""Masked language modelling inputs: 80 % masked, 10 % random, 10 % kept (Devlin et al. 2019).

What is masked in an example depends on the seed, the draw and the example alone: not on its batch,
not on padding, so two trials score the same inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distprune.errors import CheckpointError

IGNORED_LABEL = -100


def mask_tokens(
    batch: dict[str, Tensor],
    rows: Sequence[int],
    tokenizer: Any,
    probability: float,
    seed: int,
    draw: int,
) -> dict[str, Tensor]:
    """Return the batch with masked tokens and their originals as labels.

    Args:
        batch: 'input_ids' and 'attention_mask', [batch, token].
        rows: Row of each example in its split.
        tokenizer: Names the special tokens, which are never masked.
        probability: Share of an example's other tokens that is chosen, at least one token.
        seed: Seed of the trial.
        draw: Number of the masking of these examples.

    Returns:
        The batch with new 'input_ids' and with 'labels' [batch, token], `IGNORED_LABEL` where
        nothing is predicted.

    Raises:
        CheckpointError: The tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise CheckpointError(
            f"pretrained_objective: 'mlm' needs a mask token and tokenizer "
            f"{tokenizer.name_or_path!r} has none; use 'task_probe' or 'task_head'"
        )
    ids = batch["input_ids"].cpu().numpy().copy()
    labels = np.full_like(ids, IGNORED_LABEL)
    candidates = (batch["attention_mask"].cpu().numpy() == 1) & ~np.isin(
        ids, tokenizer.all_special_ids
    )
    for index, row in enumerate(rows):
        positions = np.flatnonzero(candidates[index])
        generator = np.random.default_rng([seed, draw, row])
        chosen = _choose(positions, probability, generator)
        labels[index, chosen] = ids[index, chosen]
        ids[index, chosen] = _corrupt(ids[index, chosen], tokenizer, generator)
    device = batch["input_ids"].device
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return {
        **inputs,
        "input_ids": torch.from_numpy(ids).to(device),
        "labels": torch.from_numpy(labels).to(device),
    }


def _choose(positions: Any, probability: float, generator: np.random.Generator) -> Any:
    if len(positions) == 0:
        return positions
    draws = generator.random(len(positions))
    chosen = positions[draws < probability]
    return chosen if len(chosen) else positions[[int(draws.argmin())]]


def _corrupt(originals: Any, tokenizer: Any, generator: np.random.Generator) -> Any:
    draws = generator.random(len(originals))
    random_ids = generator.integers(0, len(tokenizer), size=len(originals))
    corrupted = np.where(draws < 0.8, tokenizer.mask_token_id, originals)
    return np.where((draws >= 0.8) & (draws < 0.9), random_ids, corrupted)
