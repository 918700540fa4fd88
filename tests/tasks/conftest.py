"""Files of rows and a tokenizer of whole words, made without a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.rows import WORDS, write_jsonl


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., str]:
    """Write rows to a .jsonl file and return its path."""

    def write(rows: list[dict[str, Any]], name: str = "data.jsonl") -> str:
        return str(write_jsonl(tmp_path / name, rows))

    return write


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """Make a tokenizer of words; [PAD] is 0, and pairs are told apart by token types."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    def make(special: bool = True, **options: Any) -> Any:
        vocabulary = {token: i for i, token in enumerate(("[PAD]", "[UNK]", "[CLS]", *WORDS))}
        backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
        backend.pre_tokenizer = Whitespace()
        if special:
            backend.post_processor = TemplateProcessing(
                single="[CLS] $A", pair="[CLS] $A [CLS] $B:1", special_tokens=[("[CLS]", 2)]
            )
        options = {
            "pad_token": "[PAD]",
            "model_max_length": 512,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        } | options
        return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **options)

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: Callable[..., Any]) -> Any:
    return make_tokenizer()
