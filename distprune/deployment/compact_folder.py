"""Compact models as folders that load anywhere: with distprune, and with transformers alone.

A folder has the weights (safetensors), the configuration, the code that transformers loads them
with, the tokenizer, the mask, a model card with the evidence, and the certificate. It appears whole
and checked, or not at all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distprune.core.anatomy import describe_anatomy
from distprune.core.compact_model import RECORD, compact_class
from distprune.core.expansion import check_counts
from distprune.core.families import find_family
from distprune.core.mask import Mask
from distprune.deployment.certificate import FILE as CERTIFICATE_FILE
from distprune.deployment.certificate import (
    ONNX_TOLERANCE,
    Certificate,
    Logits,
    certify,
    model_logits,
)
from distprune.deployment.model_card import write_card
from distprune.errors import CheckpointError, StorageError
from distprune.models.checkpoint import quiet_transformers, reading
from distprune.models.source import locate_checkpoint

MASK_FILE = "mask.safetensors"
EVIDENCE_FILE = "evidence.json"
ONNX_FILE = "model.onnx"
PROGRAM_FILE = "model.pt2"


def save(
    model: Any,
    folder: str | Path,
    mask: Mask,
    tokenizer: Any | None = None,
    evidence: Mapping[str, Any] | None = None,
    num_tokens: float = 128.0,
    latency: Sequence[Mapping[str, Any]] = (),
    onnx: bool = False,
    program: bool = False,
) -> Certificate:
    """Write a compact model into a new folder, read it back, and certify it.

    Args:
        model: The compact model.
        folder: Where to; it must be empty or not exist.
        mask: The mask that the model was compacted to.
        tokenizer: Its tokenizer; None = the folder has none.
        evidence: What is known about the mask; None = its metadata.
        num_tokens: Tokens of an example, for the MACs that are stated.
        latency: Measured latencies for the certificate.
        onnx: Write `model.onnx` too.
        program: Write `model.pt2` of torch.export too.

    Raises:
        MaskError: The model has other numbers of units than the mask keeps.
        StorageError: The folder is not empty, or cannot be written.
        ExportError: What was written computes something else; nothing is left behind.
    """
    check_counts(describe_anatomy(model), mask)
    was_training = model.training
    model.eval()
    try:
        with new_folder(Path(folder)) as aside:
            with quiet_transformers():
                model.save_pretrained(aside)
            if tokenizer is not None:
                tokenizer.save_pretrained(aside)
            mask.save(aside / MASK_FILE)
            facts = dict(mask.metadata if evidence is None else evidence)
            (aside / EVIDENCE_FILE).write_text(json.dumps(facts, indent=2) + "\n")
            others = {"reloaded": (model_logits(load(aside)), 0.0)}
            others |= _export_further(model, aside, onnx, program)
            certificate = certify(model, mask, others, num_tokens, latency)
            (aside / CERTIFICATE_FILE).write_text(certificate.to_json())
            (aside / "README.md").write_text(write_card(model, mask, facts, certificate))
    finally:
        model.train(was_training)
    return certificate


def load(folder: str | Path) -> Any:
    """Load a compact model from a folder that `save` wrote, or from the hub; runs no code of it.

    Returns:
        A transformers model in evaluation mode.

    Raises:
        CheckpointError: There is no such folder, it holds no compact model, or it is damaged.
    """
    from transformers import AutoConfig

    path = locate_checkpoint(str(folder))
    check_weight_files(path)
    with reading(str(folder)), quiet_transformers():
        class_ = compact_class(_find_class(path))
        config = AutoConfig.from_pretrained(str(path))
        _check_record(getattr(config, RECORD), config.model_type, path)
        return class_.from_pretrained(str(path), config=config, use_safetensors=True).eval()


def check_weight_files(folder: Path) -> None:
    """Refuse a folder whose index of weights names files outside it.

    Raises:
        CheckpointError: It does.
    """
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
        stray = sorted(name for name in names if Path(name).name != name)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"model {folder}: {index.name} cannot be read ({error}); save the model again"
        ) from error
    if stray:
        raise CheckpointError(
            f"model {folder}: {index.name} names {stray[0]!r}, which is no file of the folder; "
            "do not use a folder of which you do not know where it comes from"
        )


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder aside to fill, and put it in its place where the block ends well.

    Raises:
        StorageError: The folder is not empty, or cannot be written.
    """
    target = check_free(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        yield aside
        aside.chmod(0o755)
        aside.replace(target)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_free(folder: Path) -> Path:
    """Return where a folder is, if nothing is there yet.

    Raises:
        StorageError: It exists and is not empty.
    """
    target = folder.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StorageError(
            f"folder {folder}: exists and is not empty; name a new one; nothing was written"
        )
    return target


def _export_further(
    model: Any, folder: Path, onnx: bool, program: bool
) -> dict[str, tuple[Logits, float]]:
    """Write the forms that were asked for, and return how to compute with them."""
    others: dict[str, tuple[Logits, float]] = {}
    if onnx:
        from distprune.deployment.onnx_export import export_onnx, onnx_logits

        export_onnx(model, folder / ONNX_FILE)
        others["onnx"] = onnx_logits(folder / ONNX_FILE), ONNX_TOLERANCE
    if program:
        from distprune.deployment.onnx_export import export_program, program_logits

        export_program(model, folder / PROGRAM_FILE)
        others["torch.export"] = program_logits(folder / PROGRAM_FILE), ONNX_TOLERANCE
    return others


def _find_class(folder: Path) -> Any:
    """Return the transformers class that a folder's configuration names; nothing else is run."""
    import transformers

    values = json.loads((folder / "config.json").read_text())
    if RECORD not in values:
        raise CheckpointError(
            f"model {folder}: has all its heads and neurons; load it with transformers, or name a "
            "folder that distprune saved"
        )
    name = str((values.get("architectures") or [""])[0])
    class_ = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(class_, type) and issubclass(class_, transformers.PreTrainedModel)):
        raise CheckpointError(
            f"model {folder}: its class {name!r} is none of transformers; save the model again"
        )
    return class_


def _check_record(record: Any, model_type: str, folder: Path) -> None:
    """Check what a configuration says about its units; paths lead to a family's modules only."""
    layout = json.loads(json.dumps(asdict(find_family(model_type))))
    is_valid = (
        isinstance(record, dict)
        and all(
            isinstance(record.get(name), list) and all(type(count) is int for count in record[name])
            for name in ("heads", "neurons")
        )
        and type(record.get("head_size")) is int
        and record["head_size"] > 0
        and record.get("layout") == layout
    )
    if not is_valid:
        raise CheckpointError(
            f"model {folder}: config.json: {RECORD} is damaged, or of another version; save the "
            "model again"
        )


def _cannot_write(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"folder {folder}: cannot be written ({error.strerror or error}); free space or name "
        "another; nothing was left behind"
    )
