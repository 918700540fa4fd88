"""Batches of similar length, padded to their longest example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from distprune.models.checkpoint import load_tokenizer
from distprune.trial.work.inputs import find_device

LENGTH_MULTIPLES = {"cuda": 8, "cpu": 4}
"""What lengths are rounded up to. The tensor cores of GPUs are faster with it; CPUs compile their
kernels anew for each shape, which takes longer than the padding."""

BATCHES_OF_POOL = 50
"""Batches whose examples are sorted together: enough for little padding, few enough that a large
training set meets other companions in each epoch."""


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


class SimilarLengthSampler(Sampler[int]):
    """Draws all rows in random order, such that consecutive batches are of similar length.

    Unlike the sampler of transformers it shuffles the batches, so the length of a step's examples
    says nothing about the step, and sorts all rows of a small training set together.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int]) -> None:
        self._batch_size = batch_size
        self._lengths = lengths

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield the rows of one epoch, drawn with torch's global generator."""
        order = torch.randperm(len(self)).tolist()
        pool = BATCHES_OF_POOL * self._batch_size
        batches = [
            batch
            for start in range(0, len(order), pool)
            for batch in self._cut(order[start : start + pool])
        ]
        # A smaller batch comes last: all others would be cut at the wrong rows after it.
        last = len(batches) - (len(order) % self._batch_size > 0)
        for number in [*torch.randperm(last).tolist(), *range(last, len(batches))]:
            yield from batches[number]

    def _cut(self, rows: list[int]) -> Iterator[list[int]]:
        rows = sorted(rows, key=lambda row: -self._lengths[row])
        for start in range(0, len(rows), self._batch_size):
            yield rows[start : start + self._batch_size]
