"""Checkpoints as models: what is in one, and loading it with a head for a task."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distprune.core.units import EncoderShape
from distprune.errors import CheckpointError
from distprune.models.source import fingerprint_checkpoint, locate_checkpoint, pin_location


@dataclass(frozen=True)
class CheckpointFacts:
    """What a study has to know of its checkpoint.

    Attributes:
        name: As the user wrote it.
        location: The name by which every process finds the same files; see `pin_location`.
        fingerprint: SHA-256 of its files, as hex.
        model_type: `config.model_type`.
        shape: Counts of its encoder.
        has_mlm_head: Whether it brings a masked language modelling head of its own.
        vocabulary_size: Rows of its token embedding.
        max_tokens: Positions that it was trained for; None = no limit of its own.
        head_outputs: Outputs of its own task head; None = it brings none.
    """

    name: str
    location: str
    fingerprint: str
    model_type: str
    shape: EncoderShape
    has_mlm_head: bool
    vocabulary_size: int
    max_tokens: int | None = None
    head_outputs: int | None = None


def inspect_checkpoint(name: str) -> CheckpointFacts:
    """Read a checkpoint's facts without training anything.

    Raises:
        CheckpointError: It cannot be found or read.
        UnsupportedModelError: Its family has no anatomy, or it is compact already.
    """
    from distprune.core.anatomy import describe_anatomy
    from distprune.core.families import find_family

    folder = locate_checkpoint(name)
    with reading(name):
        config = _load_config(folder)
        find_family(config.model_type)
        _refuse_compact(name, config)
        model, missing = _load_with_mlm_head(folder)
    return CheckpointFacts(
        name=name,
        location=pin_location(name, folder),
        fingerprint=fingerprint_checkpoint(folder),
        model_type=config.model_type,
        shape=describe_anatomy(model).shape(),
        has_mlm_head=not missing,
        vocabulary_size=config.vocab_size,
        max_tokens=_count_positions(config),
        head_outputs=_count_head_outputs(config),
    )


def load_tokenizer(name: str) -> Any:
    """Return the checkpoint's own tokenizer.

    Raises:
        CheckpointError: It has none that can be read.
    """
    from transformers import AutoTokenizer

    folder = locate_checkpoint(name)
    with reading(name, part="tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    # Where there are no tokenizer files, transformers makes one that knows no word at all.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise CheckpointError(
            f"checkpoint: {name!r} has no tokenizer; save that which it was trained with beside "
            "it (tokenizer.save_pretrained)"
        )
    return tokenizer


def load_classifier(name: str, num_labels: int, seed: int) -> tuple[Any, frozenset[str]]:
    """Load a checkpoint with a head for `num_labels` outputs: its own if it has one, or a new one.

    Args:
        name: The checkpoint.
        num_labels: Outputs; 1 = regression.
        seed: Decides the first weights of a new head.

    Returns:
        The model, and the names of the weights that the checkpoint does not hold.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = locate_checkpoint(name)
    with reading(name), quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            str(folder),
            num_labels=num_labels,
            # A checkpoint remembers what its last head was for; that is not this task.
            problem_type="regression" if num_labels == 1 else "single_label_classification",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
            trust_remote_code=False,
        )
    mismatched = {entry[0] for entry in loading["mismatched_keys"]}
    return model, frozenset(loading["missing_keys"]) | mismatched


def name_labels(model: Any, names: Sequence[str]) -> None:
    """Give a classifier's outputs the names of a task's classes, in place; none are left as is."""
    if names:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: number for number, name in enumerate(names)}


def load_masked_language_model(name: str) -> Any:
    """Load a checkpoint with its own masked language modelling head.

    Raises:
        CheckpointError: It brings none; a randomly initialised one is never used.
    """
    with reading(name):
        model, missing = _load_with_mlm_head(locate_checkpoint(name))
    if missing:
        raise missing_mlm_head(name)
    return model


def missing_mlm_head(name: str) -> CheckpointError:
    """Return the error for a checkpoint without a masked language modelling head."""
    return CheckpointError(
        f"pretrained_objective: 'mlm' needs the checkpoint's own MLM head and {name!r} has none; "
        "use 'task_probe', 'task_head' or 'auto'"
    )


def _refuse_compact(name: str, config: Any) -> None:
    if getattr(config, "distprune", None) is not None:
        raise CheckpointError(
            f"checkpoint: {name!r} has lost heads and neurons already; name the dense checkpoint "
            "that it was made from, or load it with distprune.load"
        )


def _count_positions(config: Any) -> int | None:
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or config.model_type != "roberta":
        return positions
    # RoBERTa's positions begin after its padding token's.
    return int(positions - config.pad_token_id - 1)


def _count_head_outputs(config: Any) -> int | None:
    architectures = getattr(config, "architectures", None) or []
    has_head = any(name.endswith("ForSequenceClassification") for name in architectures)
    return int(config.num_labels) if has_head else None


def _load_config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)


def _load_with_mlm_head(folder: Path) -> tuple[Any, frozenset[str]]:
    import torch
    from transformers import AutoModelForMaskedLM

    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        model, loading = AutoModelForMaskedLM.from_pretrained(
            str(folder),
            output_loading_info=True,
            dtype=torch.float32,
            trust_remote_code=False,
        )
    return model, frozenset(loading["missing_keys"])


@contextlib.contextmanager
def reading(name: str, part: str = "weights") -> Iterator[None]:
    """Turn what transformers raises about unreadable files into one clear line."""
    from safetensors import SafetensorError

    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"checkpoint: the {part} of {name!r} cannot be read ({reason}); "
            "use a complete folder that save_pretrained wrote"
        ) from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' report about new heads and its loading bars off the terminal."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
