"""Masked language modelling: what is masked depends on the example alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distprune.errors import CheckpointError
from distprune.trial.work.masked_language import IGNORED_LABEL, mask_tokens
from tests.tiny_study import SPECIAL_TOKENS, make_tokenizer

NUM_SPECIAL = len(SPECIAL_TOKENS)
PAD, UNKNOWN, FIRST, LAST, MASK = range(NUM_SPECIAL)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def make_batch(
    examples: list[list[int]], padding: int = 0, left: bool = False
) -> dict[str, Tensor]:
    length = max(map(len, examples)) + padding
    ids, real = np.full((len(examples), length), PAD), np.zeros((len(examples), length), int)
    for index, example in enumerate(examples):
        place = slice(length - len(example), None) if left else slice(len(example))
        ids[index, place], real[index, place] = example, 1
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(real),
        "labels": torch.zeros(len(examples), dtype=torch.long),
    }


def make_examples(count: int, length: int = 12, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, length + 1, size=count)
    return [[FIRST, *generator.integers(NUM_SPECIAL, 53, size=n).tolist(), LAST] for n in sizes]


def run(
    batch: dict[str, Tensor],
    rows: list[int],
    tokenizer: Any,
    probability: float = 0.15,
    seed: int = 0,
    draw: int = 0,
) -> tuple[Any, Any]:
    masked = mask_tokens(batch, rows, tokenizer, probability, seed, draw)
    return masked["input_ids"].numpy(), masked["labels"].numpy()


def real_part(values: Any, batch: dict[str, Tensor], index: int) -> list[int]:
    return values[index][batch["attention_mask"][index].numpy() == 1].tolist()


@given(order=st.permutations(range(6)), padding=st.integers(0, 9), left=st.booleans())
def test_neither_batch_nor_order_nor_padding_decides(
    tokenizer: Any, order: list[int], padding: int, left: bool
) -> None:
    examples = make_examples(6)
    whole = make_batch([examples[row] for row in order], padding, left)
    ids, labels = run(whole, order, tokenizer)
    for index, row in enumerate(order):
        alone = make_batch([examples[row]])
        own_ids, own_labels = run(alone, [row], tokenizer)
        assert real_part(ids, whole, index) == own_ids[0].tolist()
        assert real_part(labels, whole, index) == own_labels[0].tolist()


@pytest.mark.parametrize("change", [{"seed": 1}, {"draw": 1}])
def test_seed_and_draw_decide(tokenizer: Any, change: dict[str, int]) -> None:
    batch, rows = make_batch(make_examples(20)), list(range(20))
    first, again = run(batch, rows, tokenizer), run(batch, rows, tokenizer)
    other = run(batch, rows, tokenizer, **change)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[1] != other[1]).any()


def test_rows_decide_not_places_in_the_batch(tokenizer: Any) -> None:
    batch = make_batch(make_examples(1) * 2)
    ids, labels = run(batch, [3, 4], tokenizer, probability=0.5)
    assert (labels[0] != labels[1]).any() or (ids[0] != ids[1]).any()


@given(seed=st.integers(0, 1000), probability=st.sampled_from([0.01, 0.15, 0.9]))
def test_special_tokens_stay_and_one_token_at_least_is_chosen(
    tokenizer: Any, seed: int, probability: float
) -> None:
    examples = make_examples(8, seed=seed)
    examples[0][1:1] = [UNKNOWN, MASK]
    batch = make_batch(examples, padding=2)
    ids, labels = run(batch, list(range(8)), tokenizer, probability, seed)
    original = batch["input_ids"].numpy()
    special = original < NUM_SPECIAL
    chosen = labels != IGNORED_LABEL
    assert (chosen.sum(axis=1) >= 1).all()
    assert not (chosen & special).any()
    np.testing.assert_array_equal(ids[~chosen], original[~chosen])
    np.testing.assert_array_equal(labels[chosen], original[chosen])


def test_an_example_of_special_tokens_has_nothing_to_predict(tokenizer: Any) -> None:
    batch = make_batch([[FIRST, UNKNOWN, LAST], [FIRST, 9, LAST]])
    ids, labels = run(batch, [0, 1], tokenizer)
    assert (labels[0] == IGNORED_LABEL).all()
    assert ids[0].tolist() == [FIRST, UNKNOWN, LAST]
    assert (labels[1] != IGNORED_LABEL).sum() == 1


def test_shares_of_masked_random_and_kept_tokens(tokenizer: Any) -> None:
    count, length = 400, 60
    generator = np.random.default_rng(1)
    examples = generator.integers(NUM_SPECIAL, 53, size=(count, length)).tolist()
    batch = make_batch(examples)
    ids, labels = run(batch, list(range(count)), tokenizer, probability=0.3)
    chosen = labels != IGNORED_LABEL
    assert chosen.mean() == pytest.approx(0.3, abs=0.01)
    is_mask = ids[chosen] == MASK
    is_kept = ids[chosen] == labels[chosen]
    # One random token in 53 is the mask, and one is the original.
    assert is_mask.mean() == pytest.approx(0.8 + 0.1 / 53, abs=0.02)
    assert is_kept.mean() == pytest.approx(0.1 + 0.1 / 53, abs=0.015)
    assert (~is_mask & ~is_kept).mean() == pytest.approx(0.1, abs=0.015)
    assert ids.max() < len(tokenizer)


def test_the_batch_given_stays_as_it_is(tokenizer: Any) -> None:
    batch = make_batch(make_examples(4))
    before = {name: value.clone() for name, value in batch.items()}
    masked = mask_tokens(batch, [0, 1, 2, 3], tokenizer, 0.5, 0, 0)
    for name, value in before.items():
        assert torch.equal(batch[name], value)
    assert torch.equal(masked["attention_mask"], batch["attention_mask"])
    assert masked["labels"].shape == masked["input_ids"].shape


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(CheckpointError, match=r"'mlm' needs a mask token .*; use 'task_probe'"):
        mask_tokens(make_batch(make_examples(2)), [0, 1], tokenizer, 0.15, 0, 0)
