"""Masks and compact models for Python: what a user's own script loads and saves.

mask = distprune.load_mask("studies/movies/best@0.5")
model = distprune.load("studies/movies/best@0.5")    # as the study trained it
distprune.save(model, "small", mask)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distprune.core.mask import Mask
from distprune.library.mask_reference import TRACKED, load_mask_reference, parse_best


def load_mask(reference: str | Path, tracking_uri: str | None = None) -> Mask:
    """Load a mask.

    Args:
        reference: A mask file; `STUDY/best@0.5`, the best of a study folder at a milestone; or
            `runs:/...` and `models:/...`, an artifact or registered version of MLflow.
        tracking_uri: Where MLflow keeps it; None = as MLflow is set.

    Raises:
        MaskError: There is no such mask, or it cannot be read.
        ConfigError: There is no such study.
        StorageError: MLflow does not answer.
    """
    text = str(reference)
    if text.startswith(TRACKED):
        from distprune.tracking.registry import fetch_mask_file

        return Mask.load(fetch_mask_file(text, tracking_uri))
    return load_mask_reference(text)


def load(reference: str | Path) -> Any:
    """Load a compact model, in evaluation mode.

    Args:
        reference: A folder that `save` wrote, a hub id of such a one, or `STUDY/best@0.5`, the best
            of a study folder at a milestone as the study trained it.

    Raises:
        CheckpointError: There is no such model, it is not compact, or it is damaged.
        MaskError: The study has no mask at that milestone.
        StorageError: The study's store has lost the weights.
    """
    best = parse_best(str(reference))
    if best is not None:
        from distprune.deployment.trained_model import load_trained

        return load_trained(best).model
    from distprune.deployment.compact_folder import load

    return load(reference)


def save(
    model: Any,
    folder: str | Path,
    mask: Mask,
    tokenizer: Any | None = None,
    num_tokens: float = 128.0,
    onnx: bool = False,
) -> Any:
    """Write a compact model into a new folder that loads anywhere, checked and certified.

    Args:
        model: The compact model, trained or not.
        folder: Where to; it must be empty or not exist.
        mask: The mask that the model was compacted to.
        tokenizer: Its tokenizer; None = the folder has none.
        num_tokens: Tokens of an example, for the multiply-accumulates that are stated.
        onnx: Write `model.onnx` too.

    Returns:
        The certificate, a `distprune.deployment.certificate.Certificate`.

    Raises:
        MaskError: The model has other numbers of units than the mask keeps.
        StorageError: The folder is not empty, or cannot be written.
        ExportError: What was written computes something else; nothing is left behind.
    """
    from distprune.deployment.compact_folder import save

    return save(model, folder, mask, tokenizer, num_tokens=num_tokens, onnx=onnx)
