"""Batches of similar length, padded to their longest example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from distprune.models.checkpoint import load_tokenizer
from distprune.trial.work.inputs import find_device

LENGTH_MULTIPLES = {"cuda": 8, "cpu": 4}
"""What lengths are rounded up to. The tensor cores of GPUs are faster with it; CPUs compile their
kernels anew for each shape, which takes longer than the padding."""


@lru_cache(maxsize=4)
def make_collator(checkpoint: str) -> Any:
    """Return the function that pads examples of `checkpoint`'s tokenizer to a batch."""
    from transformers import DataCollatorWithPadding

    multiple = LENGTH_MULTIPLES[find_device().type]
    return DataCollatorWithPadding(load_tokenizer(checkpoint), pad_to_multiple_of=multiple)


def iterate_batches(
    dataset: Any, rows: Sequence[int], batch_size: int, checkpoint: str, device: torch.device
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Yield the given rows of a tokenised split, longest first.

    Yields:
        The rows of a batch, and its tensors on `device`, [batch, token] or [batch].
    """
    collate = make_collator(checkpoint)
    order = sort_by_length(dataset, rows)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        examples = dataset[chosen]
        features = [
            dict(zip(examples, values, strict=True))
            for values in zip(*examples.values(), strict=True)
        ]
        batch = collate(features)
        yield chosen, {name: value.to(device) for name, value in batch.items()}


def sort_by_length(dataset: Any, rows: Sequence[int]) -> list[int]:
    """Return `rows` by number of tokens, longest first; ties in the order of the split."""
    lengths = measure_lengths(dataset)
    return sorted(rows, key=lambda row: (-lengths[row], row))


def measure_lengths(dataset: Any) -> list[int]:
    """Return the number of tokens of each example, read from Arrow without making lists."""
    import pyarrow.compute

    column = dataset.data.column("input_ids")
    return [int(length) for length in pyarrow.compute.list_value_length(column).to_pylist()]
