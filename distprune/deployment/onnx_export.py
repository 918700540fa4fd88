"""Compact models for other runtimes: ONNX and torch.export, with dynamic batch and length."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distprune.deployment.certificate import Logits
from distprune.deployment.example_batches import draw_batch
from distprune.errors import ConfigError, ExportError

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "logits"
EXAMPLE = (2, 6)
"""Examples and tokens of the batch that the model is traced with."""


class LogitsOnly(nn.Module):
    """A classifier as a function of tensors alone: from the inputs, in order, to the logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Return logits [example, label] of tokens [example, token]."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, **types
        ).logits
        return logits


def export_onnx(model: Any, path: Path) -> None:
    """Write a classifier as one ONNX file; inputs are `INPUTS` [batch, length], output `OUTPUT`.

    Raises:
        ConfigError: The packages for it are not installed.
        ExportError: The model cannot be written as ONNX.
    """
    require_onnx()
    batch = draw_batch(model, *EXAMPLE)
    with _quiet(), _exporting("ONNX"):
        torch.onnx.export(
            LogitsOnly(model),
            tuple(batch.values()),
            str(path),
            input_names=list(batch),
            output_names=[OUTPUT],
            dynamic_shapes=_dynamic(batch),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def onnx_logits(path: Path, threads: int | None = None) -> Logits:
    """Return the function that computes an ONNX file's logits with onnxruntime, on the CPU."""
    session = open_session(path, threads)

    def compute(batch: Mapping[str, Tensor]) -> Tensor:
        inputs = {name: tensor.numpy() for name, tensor in batch.items()}
        (logits,) = session.run([OUTPUT], inputs)
        return torch.from_numpy(logits)

    return compute


def open_session(path: Path, threads: int | None = None) -> Any:
    """Open an ONNX file with onnxruntime on the CPU; `threads` None = as onnxruntime chooses."""
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def export_program(model: Any, path: Path) -> None:
    """Write a classifier as a program of torch.export.

    Raises:
        ExportError: torch cannot trace the model.
    """
    batch = draw_batch(model, *EXAMPLE)
    with _quiet(), _exporting("torch.export"), torch.no_grad():
        program = torch.export.export(
            LogitsOnly(model), tuple(batch.values()), dynamic_shapes=_dynamic(batch)
        )
        torch.export.save(program, path)


def program_logits(path: Path) -> Logits:
    """Return the function that computes a program's logits."""
    module = torch.export.load(path).module()

    def compute(batch: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            logits: Tensor = module(*batch.values())
        return logits

    return compute


def require_onnx() -> None:
    """Check that what ONNX needs is installed.

    Raises:
        ConfigError: It is not.
    """
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"onnx: {', '.join(missing)} not installed; run: pip install 'distprune[onnx]'"
        )


def _dynamic(batch: Mapping[str, Tensor]) -> tuple[dict[int, Any], ...]:
    batch_size, length = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    return tuple({0: batch_size, 1: length} for _ in batch)


@contextmanager
def _exporting(form: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what torch raises for a model that it cannot trace has no one type
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"{form}: the model cannot be written ({reason})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's remarks about its own exporter off the terminal."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    levels = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger, _ in levels:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
