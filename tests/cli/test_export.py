"""`distprune export`: from a study to a folder that is checked, timed, and serves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import pipeline

import distprune
from distprune.library.study_folder import StudyFolder
from tests.cli.conftest import RunCommand
from tests.in_process_study import run_study_in_process


@pytest.fixture(scope="module")
def ended(
    tmp_path_factory: pytest.TempPathFactory, mlm_checkpoint: Path, word_task: Path
) -> StudyFolder:
    storage = tmp_path_factory.mktemp("exported") / "studies"
    return run_study_in_process(storage, mlm_checkpoint, word_task)


def test_a_study_is_exported_and_serves_sentences(
    ended: StudyFolder, tmp_path: Path, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "small"
    done = run_command("export", f"{ended.root}/best@0.6", folder, "--onnx", "--torch-export")
    assert done.code == 0, done.err
    assert "gated = compact: largest difference" in done.out
    assert "onnxruntime, 1 x 16 tokens, 1 thread:" in done.out
    certificate = json.loads((folder / "certificate.json").read_text())
    runtimes = {row["runtime"] for row in certificate["latency"]}
    assert runtimes == {"torch", "onnxruntime"}
    classify = pipeline("text-classification", model=str(folder), trust_remote_code=True)
    (answer,) = classify("superb lovely clever")
    model, reference = distprune.load(folder), distprune.load(f"{ended.root}/best@0.6")
    assert answer["label"] in reference.config.label2id
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, reference(ids).logits)


def test_a_mask_alone_has_no_weights(
    ended: StudyFolder, tmp_path: Path, run_command: RunCommand
) -> None:
    done = run_command("export", ended.mask(0.6), tmp_path / "small")
    assert done.code == 2
    assert "a mask alone has no weights; name a dense checkpoint with --model" in done.err
    assert list(tmp_path.iterdir()) == []


def test_without_latency_no_speed_up_is_printed(
    ended: StudyFolder, tmp_path: Path, run_command: RunCommand
) -> None:
    done = run_command("export", f"{ended.root}/best@0.6", tmp_path / "small", "--no-latency")
    assert done.code == 0, done.err
    assert "times as fast" not in done.out


def test_a_folder_in_use_is_refused_before_anything_is_loaded(
    tmp_path: Path, run_command: RunCommand
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = run_command("export", tmp_path / "no-study" / "best@0.6", tmp_path)
    assert done.code == 2
    assert "exists and is not empty" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
