"""Tiny random models of every supported family, and batches with padding to run them on.

A new family is one line in `CONFIGS`. Weights are wide on purpose, biases and norms included: what
a test removes must show in the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    RobertaConfig,
)

from distprune.core.units import EncoderShape

NUM_LABELS = 3
VOCABULARY_SIZE = 60
SHAPE = EncoderShape(num_layers=3, num_heads=4, num_neurons=20, hidden_size=24, head_size=6)
"""Counts of every tiny model; layers and heads differ, so that swapping them shows."""

_BERT_SIZES = {
    "hidden_size": SHAPE.hidden_size,
    "num_hidden_layers": SHAPE.num_layers,
    "num_attention_heads": SHAPE.num_heads,
    "intermediate_size": SHAPE.num_neurons,
}
_DISTILBERT_SIZES = {
    "dim": SHAPE.hidden_size,
    "n_layers": SHAPE.num_layers,
    "n_heads": SHAPE.num_heads,
    "hidden_dim": SHAPE.num_neurons,
}

CONFIGS: dict[str, tuple[type[Any], dict[str, int]]] = {
    "bert": (BertConfig, _BERT_SIZES),
    "roberta": (RobertaConfig, _BERT_SIZES),
    "distilbert": (DistilBertConfig, _DISTILBERT_SIZES),
    "electra": (ElectraConfig, {**_BERT_SIZES, "embedding_size": 16}),
}
"""For each `config.model_type` its configuration class and the sizes that make `SHAPE` of it."""

ATTENTIONS = ("eager", "sdpa")


def build_config(family: str) -> Any:
    """Return the tiny configuration of `family`."""
    config_class, sizes = CONFIGS[family]
    return config_class(
        vocab_size=VOCABULARY_SIZE, max_position_embeddings=40, num_labels=NUM_LABELS, **sizes
    )


def build_classifier(family: str, attention: str = "sdpa", seed: int = 0) -> Any:
    """Build a sequence classifier with seeded wide weights, in evaluation mode."""
    return _build(AutoModelForSequenceClassification, family, attention, seed)


def build_masked_lm(family: str, attention: str = "sdpa", seed: int = 0) -> Any:
    """Build a masked language model with seeded wide weights, in evaluation mode."""
    return _build(AutoModelForMaskedLM, family, attention, seed)


def _build(auto_class: Any, family: str, attention: str, seed: int) -> Any:
    model = auto_class.from_config(build_config(family), attn_implementation=attention)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.normal_(centre, 0.3, generator=generator)
    return model.eval()


def sample_batch(
    family: str, lengths: Sequence[int] = (9, 5, 7, 3), seed: int = 0, padding: int = 0
) -> dict[str, Tensor]:
    """Sample a classification batch, right-padded to the longest example and `padding` more."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    # Drawn before padding: the same seed has the same tokens, however long the padding.
    input_ids = torch.randint(5, VOCABULARY_SIZE, shape, generator=generator)
    labels = torch.randint(0, NUM_LABELS, (len(lengths),), generator=generator)
    input_ids = nn.functional.pad(input_ids, (0, padding))
    real = torch.arange(max(lengths) + padding) < torch.tensor(lengths)[:, None]
    pad_token_id = build_config(family).pad_token_id
    return {
        "input_ids": input_ids.masked_fill(~real, pad_token_id),
        "attention_mask": real.long(),
        "labels": labels,
    }


def compute_logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Run `model` on the batch without gradients, [batch, label] (or [batch, token, word])."""
    with torch.no_grad():
        logits: Tensor = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
    return logits
