"""The service without torch: it answers what the compact model computes."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from distprune.deployment.compact_folder import save
from distprune.deployment.trained_model import load_trained
from distprune.library.mask_reference import parse_best
from tests.in_process_study import run_study_in_process

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "serve_onnx.py"
TEXTS = ["superb lovely", "dreadful boring clumsy word1 word2"]

WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = sys.modules["transformers"] = sys.modules["distprune"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, mlm_checkpoint: Path, word_task: Path
) -> tuple[Path, Any]:
    storage = tmp_path_factory.mktemp("served") / "studies"
    study = run_study_in_process(storage, mlm_checkpoint, word_task)
    best = parse_best(f"{study.root}/best@0.6")
    assert best is not None
    trained = load_trained(best)
    folder = storage.parent / "small"
    save(trained.model, folder, trained.mask, trained.tokenizer, trained.evidence, onnx=True)
    return folder, trained


@pytest.fixture(scope="module")
def address(exported: tuple[Path, Any]) -> Iterator[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, SCRIPT, exported[0], "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield line.split()[-1]
        finally:
            process.terminate()


def post(address: str, body: bytes) -> Any:
    with urllib.request.urlopen(urllib.request.Request(address, body), timeout=30) as response:
        return json.load(response)


def test_it_answers_with_the_models_labels(exported: tuple[Path, Any], address: str) -> None:
    answers = post(address, json.dumps({"inputs": TEXTS}).encode())["predictions"]
    trained = exported[1]
    batch = trained.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        probabilities = trained.model(**batch).logits.softmax(-1)
    for answer, row in zip(answers, probabilities, strict=True):
        assert answer["label"] == trained.model.config.id2label[int(row.argmax())]
        assert answer["score"] == pytest.approx(float(row.max()), abs=1e-4)


@pytest.mark.parametrize("body", [b"{}", b"[1", b'{"inputs": []}', b'{"inputs": [3]}'])
def test_a_bad_request_is_answered_and_serving_goes_on(address: str, body: bytes) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(address, body)
    assert caught.value.code == 400
    assert "error" in json.load(caught.value)
    assert post(address, json.dumps({"inputs": TEXTS[:1]}).encode())["predictions"]
