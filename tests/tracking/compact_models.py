"""Compact models in folders, with labels and a tokenizer, made without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distprune.core.mask import Mask
from tests.tiny_study import MODEL_MAX_LENGTH, SHAPE, make_tokenizer

LABELS = ("bad", "good")


def build_model(num_labels: int = 2) -> Any:
    """Build a dense classifier of the tiny counts with random weights."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    names = dict(enumerate(LABELS)) if num_labels == 2 else {0: "LABEL_0"}
    config = BertConfig(
        vocab_size=60,
        hidden_size=SHAPE.hidden_size,
        num_hidden_layers=SHAPE.num_layers,
        num_attention_heads=SHAPE.num_heads,
        intermediate_size=SHAPE.num_neurons,
        max_position_embeddings=MODEL_MAX_LENGTH,
        initializer_range=0.2,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForSequenceClassification(config).eval()


def save_compact(folder: Path, mask: Mask, num_labels: int = 2) -> Path:
    """Save the compact model of a mask with its tokenizer."""
    from distprune.deployment.compact_folder import save

    save(mask.compact(build_model(num_labels)), folder, mask, make_tokenizer())
    return folder


def score(folder: Path, sentences: list[str]) -> list[list[float]]:
    """Return the probabilities of each sentence, one by one."""
    import torch

    from distprune.deployment.compact_folder import load

    model, tokenizer = load(folder), make_tokenizer()
    with torch.no_grad():
        rows = [
            model(**tokenizer(sentence, truncation=True, return_tensors="pt")).logits.softmax(dim=1)
            for sentence in sentences
        ]
    return [row[0].tolist() for row in rows]
