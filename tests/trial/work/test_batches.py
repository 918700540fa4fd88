from __future__ import annotations

from typing import Any

import pytest
import torch

from distprune.tasks.prepared import PreparedTask
from distprune.trial.work.batches import (
    LENGTH_MULTIPLES,
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
