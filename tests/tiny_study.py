"""A checkpoint and a task small enough to train in a second, made without a network.

The checkpoint has random weights and a tokenizer of whole words; in the task a handful of words
decide the label, among others that mean nothing.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from distprune.core.units import EncoderShape

SHAPE = EncoderShape(num_layers=2, num_heads=4, num_neurons=20, hidden_size=24, head_size=6)
"""Counts of the checkpoint; layers and heads differ, so that swapping them shows."""

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GOOD = ("superb", "lovely", "clever", "moving")
BAD = ("dreadful", "boring", "clumsy", "bland")
FILLERS = tuple(f"word{number}" for number in range(40))
MODEL_MAX_LENGTH = 32


def save_checkpoint(folder: Path, has_mlm_head: bool = True, seed: int = 0) -> Path:
    """Save a BERT with random weights, with or without its MLM head, and its tokenizer."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertModel

    config = BertConfig(
        vocab_size=60,
        hidden_size=SHAPE.hidden_size,
        num_hidden_layers=SHAPE.num_layers,
        num_attention_heads=SHAPE.num_heads,
        intermediate_size=SHAPE.num_neurons,
        max_position_embeddings=MODEL_MAX_LENGTH,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForMaskedLM(config) if has_mlm_head else BertModel(config)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_tokenizer() -> Any:
    """Make a tokenizer of whole words; [PAD] is 0."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = (*SPECIAL_TOKENS, *GOOD, *BAD, *FILLERS)
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=MODEL_MAX_LENGTH,
    )


def write_task(path: Path, num_rows: int = 200, is_regression: bool = False) -> Path:
    """Write rows of distinct texts; the good and bad words among the others decide the label."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(num_rows):
        is_good = bool(number % 2)
        words = list(generator.choice(FILLERS, size=generator.integers(3, 9)))
        num_signals = int(generator.integers(1, 3))
        words += list(generator.choice(GOOD if is_good else BAD, size=num_signals))
        generator.shuffle(words)
        sign = 1 if is_good else -1
        label = sign * num_signals / 2 if is_regression else "good" if is_good else "bad"
        rows.append({"text": " ".join(words), "label": label})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    return path
