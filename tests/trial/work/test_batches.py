from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distprune.tasks.prepared import PreparedTask
from distprune.trial.work.batches import (
    BATCHES_OF_POOL,
    LENGTH_MULTIPLES,
    SimilarLengthSampler,
    iterate_batches,
    measure_lengths,
    sort_by_length,
)
from tests.trial.studies import TinyStudy

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(study: TinyStudy) -> Any:
    entry = study.store.find(study.resolve(study.make_spec()).prepared)
    assert entry is not None
    return PreparedTask.open(entry.path("facts.json").parent).split("train")


def test_every_row_comes_once_with_its_own_tokens(study: TinyStudy, dataset: Any) -> None:
    seen = []
    wanted = list(range(0, len(dataset), 3))
    for rows, batch in iterate_batches(dataset, wanted, 16, str(study.checkpoint), CPU):
        seen += rows
        assert batch["input_ids"].shape[1] % LENGTH_MULTIPLES["cpu"] == 0
        for row, ids, real, label in zip(
            rows, batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
        ):
            assert ids[real == 1].tolist() == dataset[row]["input_ids"]
            assert not ids[real == 0].any()
            assert label == dataset[row]["labels"]
    assert sorted(seen) == wanted
    assert len(seen) == len(wanted)


def test_batches_are_of_similar_length_longest_first(study: TinyStudy, dataset: Any) -> None:
    lengths = measure_lengths(dataset)
    assert lengths == [len(row["input_ids"]) for row in dataset]
    order = sort_by_length(dataset, range(len(dataset)))
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)
    ties = [row for row in order if lengths[row] == lengths[order[0]]]
    assert ties == sorted(ties)


def test_the_last_batch_may_be_short(study: TinyStudy, dataset: Any) -> None:
    sizes = [
        len(rows) for rows, _ in iterate_batches(dataset, range(10), 4, str(study.checkpoint), CPU)
    ]
    assert sizes == [4, 4, 2]


@given(st.lists(st.integers(1, 60), max_size=400), st.integers(1, 5), st.integers(0, 9))
def test_each_epoch_draws_every_row_once(lengths: list[int], batch_size: int, seed: int) -> None:
    torch.manual_seed(seed)
    sampler = SimilarLengthSampler(batch_size, lengths)
    assert sorted(sampler) == list(range(len(sampler))) == list(range(len(lengths)))


def test_batches_of_an_epoch_are_slices_of_the_sorted_rows_in_random_order() -> None:
    lengths = [row % 7 + 1 for row in range(4 * 10 + 2)]
    torch.manual_seed(0)
    epochs = [list(SimilarLengthSampler(4, lengths)) for _ in range(2)]
    assert epochs[0] != epochs[1]
    for rows in epochs:
        batches = [[lengths[row] for row in rows[i : i + 4]] for i in range(0, len(rows), 4)]
        assert [len(batch) for batch in batches] == [4] * 10 + [2]
        longest_first = sorted(batches[:-1], reverse=True)
        assert longest_first != batches[:-1]
        assert list(chain(*longest_first, batches[-1])) == sorted(lengths, reverse=True)


def test_a_large_training_set_is_sorted_in_pools() -> None:
    num_rows = 3 * BATCHES_OF_POOL * 2
    torch.manual_seed(0)
    rows = list(SimilarLengthSampler(2, range(num_rows)))
    pairs = [abs(rows[i] - rows[i + 1]) for i in range(0, num_rows, 2)]
    assert max(pairs) > 1
    assert sum(pairs) / len(pairs) < 12
