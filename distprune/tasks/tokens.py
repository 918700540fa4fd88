"""Turning the examples of a split into token ids: truncated, not padded, in order."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distprune.errors import CheckpointError, ConfigError, DatasetError
from distprune.tasks.examples import Examples
from distprune.tasks.spec import TaskSpec

if TYPE_CHECKING:
    import datasets
    import transformers


def check_tokenizer(
    spec: TaskSpec,
    tokenizer: "transformers.PreTrainedTokenizerBase",
    vocabulary_size: int | None,
) -> None:
    """Refuse a tokenizer that cannot serve the task.

    Args:
        spec: the task.
        tokenizer: the tokenizer of the checkpoint.
        vocabulary_size: rows of the checkpoint's embedding table; None checks no ids.

    Raises:
        DatasetError: if there is no padding token.
        CheckpointError: if the padding token is outside the vocabulary of the checkpoint.
        ConfigError: if `max_length` is more than the tokenizer allows.
    """
    if tokenizer.pad_token_id is None:
        raise DatasetError(
            f"tokenizer {tokenizer.name_or_path!r}: has no padding token, and examples of a batch "
            "differ in length; set tokenizer.pad_token and save it with the checkpoint"
        )
    _check_id(tokenizer, tokenizer.pad_token_id, vocabulary_size)
    if spec.max_length > tokenizer.model_max_length:
        raise ConfigError(
            f"max_length: {spec.max_length} tokens, must be at most the "
            f"{tokenizer.model_max_length} of tokenizer {tokenizer.name_or_path!r}; lower it"
        )


def tokenise(
    spec: TaskSpec,
    examples: Examples,
    tokenizer: "transformers.PreTrainedTokenizerBase",
    scratch_file: Path,
    fingerprint: str,
) -> "datasets.Dataset":
    """Tokenise one split.

    Args:
        spec: the task, for its columns and `max_length`.
        examples: texts and labels of the split, n rows.
        tokenizer: the tokenizer of the checkpoint.
        scratch_file: an Arrow file that backs the result.
        fingerprint: a name for the result, so that equal inputs give equal files.

    Returns:
        n rows in the order of the examples: input_ids (int32), attention_mask (int8),
        token_type_ids (int8, if the tokenizer makes them) and labels (int64 or float32).
    """
    features = _make_features(tokenizer, str(examples.labels.dtype))
    columns = [name for name in features if name != "labels"]

    def encode(batch: dict[str, list[str]], rows: list[int]) -> dict[str, Any]:
        encoded = tokenizer(
            *(batch[column] for column in spec.columns[:-1]),
            truncation=True,
            max_length=spec.max_length,
            padding=False,
            return_attention_mask=True,
            return_token_type_ids="token_type_ids" in columns,
        )
        return {name: encoded[name] for name in columns} | {"labels": examples.labels[rows]}

    return examples.texts.map(
        encode,
        batched=True,
        with_indices=True,
        remove_columns=examples.texts.column_names,
        features=features,
        cache_file_name=str(scratch_file),
        load_from_cache_file=False,
        new_fingerprint=fingerprint,
    )


def measure_tokens(
    tokenised: "datasets.Dataset",
    tokenizer: "transformers.PreTrainedTokenizerBase",
    vocabulary_size: int | None,
) -> float:
    """Check the ids of a split and measure its length.

    Args:
        tokenised: what `tokenise` returned.
        tokenizer: the tokenizer that made it.
        vocabulary_size: rows of the checkpoint's embedding table; None checks no ids.

    Returns:
        Tokens of an example, on average.

    Raises:
        CheckpointError: if an id is outside the vocabulary of the checkpoint.
        DatasetError: if an example has no tokens.
    """
    from pyarrow import compute  # type: ignore[import-untyped, unused-ignore]

    column = tokenised.with_format("arrow")[:]["input_ids"]
    lengths: npt.NDArray[np.int64] = np.asarray(compute.list_value_length(column))
    if lengths.min() == 0:
        raise DatasetError(
            f"text in example {lengths.argmin() + 1}: has no tokens for tokenizer "
            f"{tokenizer.name_or_path!r}, must have at least one; remove empty texts"
        )
    _check_id(tokenizer, compute.max(compute.list_flatten(column)).as_py(), vocabulary_size)
    return float(lengths.mean())


def _make_features(
    tokenizer: "transformers.PreTrainedTokenizerBase", label_type: str
) -> "datasets.Features":
    import datasets

    types = {"input_ids": "int32", "attention_mask": "int8"}
    if "token_type_ids" in tokenizer.model_input_names:
        types["token_type_ids"] = "int8"
    columns = {name: datasets.List(datasets.Value(dtype)) for name, dtype in types.items()}
    return datasets.Features(columns | {"labels": datasets.Value(label_type)})


def _check_id(
    tokenizer: "transformers.PreTrainedTokenizerBase", token_id: int, vocabulary_size: int | None
) -> None:
    if vocabulary_size is not None and token_id >= vocabulary_size:
        raise CheckpointError(
            f"tokenizer {tokenizer.name_or_path!r}: makes token id {token_id}, must be below the "
            f"{vocabulary_size} embeddings of the checkpoint; use the tokenizer it was trained with"
        )
