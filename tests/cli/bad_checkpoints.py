"""Checkpoints that a study cannot use, made without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def copy_with_family(checkpoint: Path, folder: Path, family: str) -> Path:
    """Copy a checkpoint and say that it is of another family."""
    return copy_with_config(checkpoint, folder, model_type=family)


def copy_with_config(checkpoint: Path, folder: Path, **changes: object) -> Path:
    """Copy a checkpoint and change its configuration."""
    shutil.copytree(checkpoint, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def copy_without(checkpoint: Path, folder: Path, name: str) -> Path:
    """Copy a checkpoint and leave one of its files out."""
    shutil.copytree(checkpoint, folder)
    (folder / name).unlink()
    return folder


def copy_truncated(checkpoint: Path, folder: Path) -> Path:
    """Copy a checkpoint and cut its weights in half."""
    shutil.copytree(checkpoint, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return folder


def save_small_vocabulary(folder: Path, tokenizer_of: Path, size: int) -> Path:
    """Save a BERT with fewer embeddings than the tokenizer beside it has words."""
    from transformers import BertConfig, BertForMaskedLM

    from tests.tiny_study import SHAPE

    config = BertConfig(
        vocab_size=size,
        hidden_size=SHAPE.hidden_size,
        num_hidden_layers=SHAPE.num_layers,
        num_attention_heads=SHAPE.num_heads,
        intermediate_size=SHAPE.num_neurons,
        max_position_embeddings=32,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_of / name, folder / name)
    return folder
