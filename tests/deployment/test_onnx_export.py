"""ONNX and torch.export: other runtimes compute the same, for every family and empty layers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from distprune.core.mask import Mask
from distprune.deployment import onnx_export
from distprune.deployment.compact_folder import save
from distprune.deployment.example_batches import draw_batch
from distprune.deployment.onnx_export import (
    export_onnx,
    export_program,
    onnx_logits,
    program_logits,
)
from distprune.errors import ConfigError
from tests.core.mask_strategies import make_mask
from tests.model_families import CONFIGS, SHAPE, build_classifier, compute_logits

DENSE = Mask.dense(SHAPE)
MIXED = make_mask(
    [[0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0]],
    [[1, 0] * 10, [0] * 20, [1] * 20],
)

SERVE_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = sys.modules["distprune"] = None
import numpy, onnxruntime
path, batch, result = sys.argv[1:]
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
(logits,) = session.run(["logits"], dict(numpy.load(batch)))
numpy.save(result, logits)
"""


@pytest.mark.parametrize("family", CONFIGS)
def test_other_runtimes_compute_the_same_for_any_batch_and_length(
    family: str, tmp_path: Path
) -> None:
    compact = MIXED.compact(build_classifier(family))
    export_onnx(compact, tmp_path / "model.onnx")
    export_program(compact, tmp_path / "model.pt2")
    others = onnx_logits(tmp_path / "model.onnx"), program_logits(tmp_path / "model.pt2")
    for shape in ((1, 1), (1, 9), (5, 3), (2, 17)):
        batch = draw_batch(compact, *shape)
        expected = compute_logits(compact, batch)
        for logits in others:
            torch.testing.assert_close(logits(batch), expected, rtol=1e-4, atol=1e-4)


def test_onnxruntime_serves_it_without_torch(tmp_path: Path) -> None:
    compact = MIXED.compact(build_classifier("bert"))
    save(compact, tmp_path / "small", MIXED, onnx=True, program=True)
    agreements = json.loads((tmp_path / "small" / "certificate.json").read_text())["agreements"]
    assert [one["second"] for one in agreements] == [
        "compact",
        "reloaded",
        "onnx",
        "torch.export",
    ]
    batch = draw_batch(compact, 3, 8)
    np.savez(tmp_path / "batch.npz", **{name: value.numpy() for name, value in batch.items()})
    script = tmp_path / "serve.py"
    script.write_text(SERVE_WITHOUT_TORCH)
    model, result = tmp_path / "small" / "model.onnx", tmp_path / "logits.npy"
    command = [sys.executable, script, model, tmp_path / "batch.npz", result]
    subprocess.run(command, check=True)
    expected = compute_logits(compact, batch).numpy()
    np.testing.assert_allclose(np.load(result), expected, rtol=1e-4, atol=1e-4)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"onnx, onnxscript, onnxruntime not installed; run: pip"):
        onnx_export.export_onnx(MIXED.compact(build_classifier("bert")), tmp_path / "model.onnx")
