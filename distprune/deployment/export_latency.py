"""The latencies that a certificate states: an exported model beside its dense form."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from distprune.core.expansion import expand
from distprune.core.latency_table import Conditions
from distprune.core.mask import Mask
from distprune.deployment.latency_measurement import (
    ROUNDS,
    LatencyComparison,
    ProcessorStopwatch,
    compare_rounds,
    measure_latency,
    promise_speed_up,
    time_in_turn,
)
from distprune.deployment.onnx_export import export_onnx, open_session

SHAPES = ((1, 32), (32, 128))
"""Sequences of a batch and their tokens: one request, and a full batch."""

TORCH = "torch"
ONNX = "onnxruntime"


def measure_export(
    model: Any, mask: Mask, threads: Sequence[int], onnx: bool, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Time a compact model on the CPU in float32, in turn with its dense form.

    Args:
        model: The compact model.
        mask: The mask that it was compacted to.
        threads: Numbers of threads to time with.
        onnx: Time both with onnxruntime too.
        rounds: Timed rounds of each.

    Returns:
        For each shape, number of threads and runtime what `LatencyComparison.to_json` has, and the
        name of the runtime.
    """
    dense = expand(model, mask)
    longest = model.config.max_position_embeddings // 2
    conditions = [
        Conditions(batch, min(length, longest), count)
        for batch, length in SHAPES
        for count in threads
    ]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        if onnx:
            export_onnx(dense.eval(), Path(scratch) / "dense.onnx")
            export_onnx(model, Path(scratch) / "model.onnx")
        for one in conditions:
            comparison = measure_latency(model, one, dense, mask, rounds)
            rows.append({"runtime": TORCH, **comparison.to_json()})
            if onnx:
                comparison = _measure_onnx(Path(scratch), dense, mask, one, rounds)
                rows.append({"runtime": ONNX, **comparison.to_json()})
    return rows


def _measure_onnx(
    folder: Path, dense: Any, mask: Mask, conditions: Conditions, rounds: int
) -> LatencyComparison:
    tokens = torch.full((conditions.batch, conditions.length), dense.config.vocab_size // 2)
    inputs = {
        "input_ids": tokens.numpy(),
        "attention_mask": torch.ones_like(tokens).numpy(),
        "token_type_ids": torch.zeros_like(tokens).numpy(),
    }
    actions = {}
    for name in ("dense", "model"):
        session = open_session(folder / f"{name}.onnx", conditions.threads)
        taken = {one.name: inputs[one.name] for one in session.get_inputs()}
        actions[name] = _bind(session, taken)
    seconds = time_in_turn(actions, rounds, ProcessorStopwatch())
    return compare_rounds(seconds, conditions, promise_speed_up(dense, mask, conditions.length))


def _bind(session: Any, inputs: dict[str, Any]) -> Any:
    return lambda: session.run(None, inputs)
