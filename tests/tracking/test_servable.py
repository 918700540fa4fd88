"""Compact models as MLflow models: what is checked, what is written, and a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from distprune.core.mask import Mask
from distprune.errors import CheckpointError, MaskError
from distprune.tracking.registry import MaskFiles, Registry, fetch_mask_file, register_mask
from distprune.tracking.servable import EXAMPLE, check_servable, write_servable
from tests.tiny_study import make_tokenizer
from tests.tracking.compact_models import LABELS, save_compact, score
from tests.tracking.conftest import Tracked
from tests.trial.studies import keep

pytestmark = [
    pytest.mark.xdist_group("mlflow"),
    pytest.mark.filterwarnings("ignore"),
]

MASK = keep(4, 20)
SENTENCES = ["superb lovely word1", "dreadful", "word2 word3 " * 30]
"""The last one is longer than the model takes."""


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_compact(tmp_path_factory.mktemp("compact") / "small", MASK)


@pytest.fixture(scope="session")
def servable(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("servable") / "model"
    write_servable(saved, path)
    return path


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copied"))


def predict(path: Path, sentences: list[str]) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(str(path)).predict(sentences)


def check_answers(answers: list[Any], saved: Path, sentences: list[str]) -> None:
    for answer, expected in zip(answers, score(saved, sentences), strict=True):
        scores = dict(zip(LABELS, expected, strict=True))
        assert answer["scores"] == pytest.approx(scores, abs=1e-5)
        assert answer["label"] == max(scores, key=lambda name: scores[name])


def test_folder_that_distprune_saved(saved: Path, copied: Path) -> None:
    mask, fingerprint = check_servable(saved)
    assert mask == MASK
    assert check_servable(copied) == (mask, fingerprint)


def test_other_weights_are_another_model(saved: Path, copied: Path) -> None:
    config = copied / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"classifier_dropout": 0.5}))
    assert check_servable(copied)[1] != check_servable(saved)[1]


def test_answers_are_those_of_the_model(servable: Path, saved: Path) -> None:
    check_answers(predict(servable, SENTENCES), saved, SENTENCES)


def test_more_sentences_than_a_batch(servable: Path, saved: Path) -> None:
    sentences = [f"word{number % 40}" for number in range(70)]
    check_answers(predict(servable, sentences), saved, sentences)


def test_signature_example_and_no_pickle(servable: Path) -> None:
    facts = yaml.safe_load((servable / "MLmodel").read_text())
    assert json.loads(facts["signature"]["inputs"])[0]["type"] == "string"
    (output,) = json.loads(facts["signature"]["outputs"])
    assert set(output["properties"]) == {"label", "scores"}
    example = json.loads((servable / "input_example.json").read_text())
    assert example == EXAMPLE
    files = [path for path in servable.rglob("*") if path.is_file()]
    assert [p for p in files if p.suffix in (".pkl", ".pickle", ".bin", ".pt")] == []
    code = Path(facts["flavors"]["python_function"]["model_code_path"]).name
    assert "distprune.core" not in (servable / code).read_text()
    requirements = (servable / "requirements.txt").read_text()
    assert re.search(r"^transformers==", requirements, re.M)
    assert "distprune" not in requirements


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_sentence_longer_than_the_model_takes(family: str, tmp_path: Path) -> None:
    """The tokenizer knows no limit; RoBERTa has fewer positions than its table has rows."""
    from distprune.deployment.compact_folder import save
    from distprune.tracking.serving_model import SentenceClassifier
    from tests.model_families import SHAPE, build_classifier

    mask = Mask.dense(SHAPE)
    mask = Mask({kind: mask[kind] & (np.arange(mask[kind].shape[1]) > 1) for kind in mask.kept})
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 10**30
    save(mask.compact(build_classifier(family)), tmp_path / family, mask, tokenizer)
    model = SentenceClassifier()
    model.load_context(SimpleNamespace(artifacts={"model": str(tmp_path / family)}))
    (answer,) = model.predict(["word2 word3 " * 40])
    assert sum(answer["scores"].values()) == pytest.approx(1.0)


def test_regression(tmp_path: Path) -> None:
    folder = save_compact(tmp_path / "small", MASK, num_labels=1)
    write_servable(folder, tmp_path / "model")
    (answer,) = predict(tmp_path / "model", ["superb"])
    assert answer["label"] == "value"
    assert isinstance(answer["scores"]["value"], float)


class TestRefusal:
    """Nothing of the folder is run before it is known to be distprune's own."""

    @pytest.fixture
    def marker(self, tmp_path: Path) -> Iterator[Path]:
        path = tmp_path / "executed"
        yield path
        assert not path.exists()

    def change(self, path: Path, **changes: Any) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    @pytest.mark.parametrize("name", ["compact_modeling.py", "compact_model.py"])
    def test_code_that_was_changed(self, name: str, copied: Path, marker: Path) -> None:
        path = copied / name
        path.write_text(path.read_text() + f"\nopen({str(marker)!r}, 'w')\n")
        with pytest.raises(CheckpointError, match="its code is not what this version"):
            check_servable(copied)

    def test_code_that_was_added(self, copied: Path, marker: Path) -> None:
        (copied / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
        self.change(copied / "config.json", auto_map={"AutoConfig": "evil.Evil"})
        with pytest.raises(CheckpointError, match="its code is not what this version"):
            check_servable(copied)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
    def test_code_of_another_repository(self, name: str, copied: Path) -> None:
        auto_map = {"AutoModelForSequenceClassification": "somebody/evil--evil.Evil"}
        self.change(copied / name, auto_map=auto_map)
        with pytest.raises(CheckpointError, match="its code is not what this version"):
            check_servable(copied)

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no such folder"):
            check_servable(tmp_path / "nowhere")

    def test_dense_model(self, mlm_checkpoint: Path) -> None:
        with pytest.raises(CheckpointError, match="all its heads and neurons"):
            check_servable(mlm_checkpoint)

    def test_truncated_weights(self, copied: Path) -> None:
        weights = copied / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(CheckpointError) as caught:
            check_servable(copied)
        assert "\n" not in str(caught.value)


class TestRegistered:
    @pytest.fixture
    def place(self, study: Tracked) -> Registry:
        name = re.sub(r"\W", "_", study.name)
        return Registry(study.uri, str(study.folder / "artifacts"), name, study.name, "id7")

    @pytest.fixture
    def write_files(self, tmp_path: Path) -> Callable[[Mask, Path | None], MaskFiles]:
        def write(mask: Mask, model: Path | None) -> MaskFiles:
            mask.save(tmp_path / "mask.safetensors")
            (tmp_path / "evidence.json").write_text("{}")
            return MaskFiles(0.5, tmp_path / "mask.safetensors", tmp_path / "evidence.json", model)

        return write

    def test_version_is_mask_and_model(
        self, place: Registry, saved: Path, write_files: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DISTPRUNE_CACHE", str(saved.parent / "cache"))
        registered = register_mask(place, write_files(MASK, saved))
        assert registered.has_model
        assert Mask.load(fetch_mask_file(registered.uri, place.uri)) == MASK
        assert not register_mask(place, write_files(MASK, saved)).is_new
        # Without a model it is the same mask still, and the alias stays where it can be served.
        again = register_mask(place, write_files(MASK, None))
        assert again == replace(registered, is_new=False)

    def test_model_for_a_mask_that_is_registered_without(
        self, place: Registry, saved: Path, write_files: Any
    ) -> None:
        assert not register_mask(place, write_files(MASK, None)).has_model
        registered = register_mask(place, write_files(MASK, saved))
        assert (registered.version, registered.is_new, registered.has_model) == (2, True, True)

    def test_model_of_another_mask(self, place: Registry, saved: Path, write_files: Any) -> None:
        with pytest.raises(MaskError, match="was made of another mask"):
            register_mask(place, write_files(keep(4, 20, seed=9), saved))

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_it_is_served_over_http(
        self, place: Registry, saved: Path, write_files: Any, tmp_path: Path
    ) -> None:
        registered = register_mask(place, write_files(MASK, saved))
        uri = registered.uri.replace("0.5", "0_5")
        with serve(uri, place.uri, tmp_path) as address:
            answer = post(address, {"inputs": SENTENCES})
            check_answers(answer["predictions"], saved, SENTENCES)
            with pytest.raises(urllib.error.HTTPError) as caught:
                post(address, {"inputs": [1, 2]})
            with caught.value as refusal:
                assert refusal.code == 400


@contextmanager
def serve(uri: str, store: str, folder: Path) -> Iterator[str]:
    """Serve a registered version as a user does; whatever happens, the server ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", uri, "-p", str(port), "-h", "127.0.0.1"]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store,
        "PYTHONWARNINGS": "ignore",
        # The server calls uvicorn by its name.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_MODULES_CACHE": str(folder / "modules"),
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", process, log)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 240
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.3)


def post(address: str, values: Any) -> Any:
    request = urllib.request.Request(
        address, json.dumps(values).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())
