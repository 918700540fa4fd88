from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from distprune.errors import CheckpointError, ConfigError, DatasetError
from distprune.tasks.examples import Examples
from distprune.tasks.spec import TaskSpec
from distprune.tasks.tokens import check_tokenizer, measure_tokens, tokenise

SPEC = TaskSpec(dataset="data.csv", max_length=8)
TEXTS = ["good film", "the " * 20, "unheard", "a very bad book"]


def run(tokenizer: Any, folder: Path, spec: TaskSpec = SPEC, dtype: Any = np.int64) -> Any:
    columns = {"text": TEXTS, "second": TEXTS[::-1]}
    texts = datasets.Dataset.from_dict(columns).select_columns(list(spec.columns[:-1]))
    examples = Examples(texts, np.asarray([3, 1, 2, 0], dtype=dtype))
    return tokenise(spec, examples, tokenizer, folder / "tokens.arrow", "name")


def test_truncates_and_does_not_pad(tokenizer: Any, tmp_path: Path) -> None:
    rows = run(tokenizer, tmp_path)
    assert rows["input_ids"][:] == [[2, 3, 5], [2] + [9] * 7, [2, 1], [2, 10, 7, 4, 6]]
    assert [len(mask) for mask in rows["attention_mask"]] == [3, 8, 2, 5]
    assert all(set(mask) == {1} for mask in rows["attention_mask"])
    assert rows["labels"][:] == [3, 1, 2, 0]
    assert rows._fingerprint == "name"  # else datasets hashes the tokenizer, or draws one
    assert measure_tokens(rows, tokenizer, 11) == 18 / 4


def test_padding_that_the_tokenizer_brings_is_off(
    make_tokenizer: Callable[..., Any], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.enable_padding(length=12)
    assert len(run(tokenizer, tmp_path)["input_ids"][0]) == 3


def test_pairs_have_token_types(tokenizer: Any, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"text_pair": "second"})
    rows = run(tokenizer, tmp_path, spec)
    assert rows[0]["input_ids"] == [2, 3, 5, 2, 10, 7, 4, 6]
    assert rows[0]["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_no_token_types_where_the_model_has_none(
    make_tokenizer: Callable[..., Any], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(model_input_names=["input_ids", "attention_mask"])
    rows = run(tokenizer, tmp_path, dtype=np.float32)
    assert {name: str(feature) for name, feature in rows.features.items()} == {
        "input_ids": "List(Value('int32'))",
        "attention_mask": "List(Value('int8'))",
        "labels": "Value('float32')",
    }


def test_refuses_a_tokenizer_without_padding(make_tokenizer: Callable[..., Any]) -> None:
    with pytest.raises(DatasetError, match=r"has no padding token, .* set tokenizer.pad_token"):
        check_tokenizer(SPEC, make_tokenizer(pad_token=None), None)


def test_refuses_a_length_beyond_the_tokenizer(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(model_max_length=16)
    check_tokenizer(SPEC.model_copy(update={"max_length": 16}), tokenizer, None)
    with pytest.raises(
        ConfigError, match="max_length: 17 tokens, must be at most the 16 of tokeni"
    ):
        check_tokenizer(SPEC.model_copy(update={"max_length": 17}), tokenizer, None)


def test_refuses_ids_outside_the_vocabulary(
    make_tokenizer: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    rows = run(tokenizer, tmp_path)
    with pytest.raises(CheckpointError, match="makes token id 10, must be below the 10 embeddings"):
        measure_tokens(rows, tokenizer, 10)
    high = make_tokenizer(pad_token="[LATE]")
    check_tokenizer(SPEC, high, 12)
    with pytest.raises(CheckpointError, match="makes token id 11, must be below the 11 embeddings"):
        check_tokenizer(SPEC, high, 11)


def test_refuses_examples_without_tokens(
    make_tokenizer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(special=False)
    monkeypatch.setitem(globals(), "TEXTS", ["good", " ", "bad", "film"])
    with pytest.raises(DatasetError, match="text in example 2: has no tokens"):
        measure_tokens(run(tokenizer, tmp_path), tokenizer, None)
