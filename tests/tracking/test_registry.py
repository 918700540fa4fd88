"""The registry against a real MLflow database: registered once, found again, fetched whole."""

from __future__ import annotations

import json
import os
import pickle
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distprune.core.mask import Mask
from distprune.errors import ConfigError, MaskError, StorageError
from distprune.tracking import naming, registry
from distprune.tracking.client import open_client
from distprune.tracking.registry import (
    MaskFiles,
    RegisteredMask,
    Registry,
    fetch_mask_file,
    register_mask,
)
from tests.tracking.conftest import Tracked
from tests.tracking.events import run_trial
from tests.trial.studies import keep

pytestmark = [
    pytest.mark.xdist_group("mlflow"),
    pytest.mark.filterwarnings("ignore"),
]

METADATA = {
    "trial": 7,
    "checkpoint": {"name": "tiny", "fingerprint": "c" * 64, "model_type": "bert"},
    "metrics": {"name": "accuracy", "search": 0.81, "report": 0.79, "retention": 0.75},
}

WriteMask = Callable[..., MaskFiles]


@pytest.fixture
def write_mask(tmp_path: Path) -> WriteMask:
    """Write the files of the best mask at a milestone."""

    def write(milestone: float = 0.5, seed: int = 0, model: Path | None = None) -> MaskFiles:
        folder = tmp_path / "masks" / f"{milestone:g}"
        metadata = {**METADATA, "milestone": milestone}
        keep(4, 20, seed).with_metadata(metadata).save(folder / "mask.safetensors")
        (folder / "evidence.json").write_text(json.dumps(metadata))
        return MaskFiles(milestone, folder / "mask.safetensors", folder / "evidence.json", model)

    return write


@pytest.fixture
def place(study: Tracked) -> Registry:
    """A registered model of its own for each test; `study` is tracked in the same database."""
    name = re.sub(r"\W", "_", study.name)
    return Registry(study.uri, str(study.folder / "artifacts"), name, study.name, "id7")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def list_versions(place: Registry) -> list[Any]:
    client = open_client(place.uri)
    found = client.search_model_versions(f"name = '{place.model_name}'")
    return sorted(found, key=lambda version: int(version.version))


def list_mask_runs(study: Tracked) -> list[Any]:
    return study.find(naming.KIND_MASK)


def test_version_says_what_it_is(place: Registry, write_mask: WriteMask) -> None:
    registered = register_mask(place, write_mask())
    assert registered == RegisteredMask(0.5, place.model_name, 1, "best-0_5", True, False)
    (version,) = list_versions(place)
    assert version.tags == {
        "distprune.study_id": "id7",
        "distprune.best_at": "0.5",
        "distprune.mask": keep(4, 20).digest,
        "distprune.model": "none",
        "distprune.kind": "mask",
        "distprune.study": place.study_name,
        "distprune.trial": "7",
        "distprune.checkpoint": "tiny",
        "distprune.checkpoint_fingerprint": "c" * 64,
        "distprune.metric": "accuracy",
        "search": "0.81",
        "report": "0.79",
        "retention": "0.75",
    }
    assert "keeps 4 of 8 heads and 20 of 40 neurons" in version.description


def test_run_is_nested_in_the_study_s_and_has_the_files(
    study: Tracked, place: Registry, write_mask: WriteMask
) -> None:
    study.track([*run_trial()])
    register_mask(place, write_mask())
    (parent,) = study.find(naming.KIND_STUDY)
    (run,) = list_mask_runs(study)
    assert run.data.tags[naming.PARENT_RUN] == parent.info.run_id
    assert run.info.run_name == "best at 0.5"
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"search": 0.81, "report": 0.79, "retention": 0.75}
    assert study.list_files(run) == ["ticket/evidence.json", "ticket/mask.safetensors"]


def test_registering_again_changes_nothing(
    study: Tracked, place: Registry, write_mask: WriteMask
) -> None:
    first = register_mask(place, write_mask())
    before = [dict(version) for version in list_versions(place)]
    again = register_mask(place, write_mask())
    assert (again.version, again.is_new, first.is_new) == (1, False, True)
    assert [dict(version) for version in list_versions(place)] == before
    assert len(list_mask_runs(study)) == 1


def test_better_mask_is_a_new_version_and_gets_the_alias(
    place: Registry, write_mask: WriteMask
) -> None:
    register_mask(place, write_mask())
    register_mask(place, write_mask(milestone=0.25))
    better = register_mask(place, write_mask(seed=9))
    assert better.version == 3
    uri = f"models:/{place.model_name}"
    assert Mask.load(fetch_mask_file(f"{uri}@best-0.5", place.uri)) == keep(4, 20, seed=9)
    assert Mask.load(fetch_mask_file(f"{uri}/1", place.uri)) == keep(4, 20)
    assert len(list_versions(place)) == 3


def test_study_of_the_same_name_has_versions_of_its_own(
    place: Registry, write_mask: WriteMask
) -> None:
    register_mask(place, write_mask())
    other = Registry(
        place.uri, place.artifact_location, place.model_name, place.study_name, "other"
    )
    assert register_mask(other, write_mask()).is_new


def test_what_an_outage_has_interrupted_is_finished_by_the_next_call(
    study: Tracked, place: Registry, write_mask: WriteMask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes away when the files are there and the version is not."""

    class Broken:
        def __init__(self, uri: str) -> None:
            self.client = open_client(uri)

        def __getattr__(self, name: str) -> Any:
            if name == "create_model_version":
                raise ConnectionError("nobody listens at http://user:secret@host")
            return getattr(self.client, name)

    with monkeypatch.context() as patch:
        patch.setattr(registry, "open_client", Broken)
        with pytest.raises(StorageError, match=r"does not answer \(nobody listens") as caught:
            register_mask(place, write_mask())
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list_versions(place) == []
    assert register_mask(place, write_mask()).is_new
    assert len(list_versions(place)) == len(list_mask_runs(study)) == 1


class TestFetch:
    @pytest.fixture
    def registered(self, place: Registry, write_mask: WriteMask) -> RegisteredMask:
        return register_mask(place, write_mask())

    @pytest.mark.parametrize("suffix", ["@best-0.5", "@best-0_5", "/1", "/latest"])
    def test_version(
        self, suffix: str, place: Registry, registered: RegisteredMask, cache: Path
    ) -> None:
        path = fetch_mask_file(f"models:/{registered.name}{suffix}", place.uri)
        mask = Mask.load(path)
        assert mask == keep(4, 20)
        metadata: Any = mask.metadata
        assert metadata["trial"] == 7
        assert [str(p.parent) for p in cache.rglob("*.*")] == [str(cache / "masks")]

    def test_run(self, study: Tracked, place: Registry, registered: RegisteredMask) -> None:
        (run,) = list_mask_runs(study)
        for path in ("ticket", "ticket/mask.safetensors"):
            fetched = fetch_mask_file(f"runs:/{run.info.run_id}/{path}", place.uri)
            assert Mask.load(fetched) == keep(4, 20)

    def test_store_that_mlflow_is_set_to(
        self, place: Registry, registered: RegisteredMask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
        assert Mask.load(fetch_mask_file(registered.uri)) == keep(4, 20)

    @pytest.mark.parametrize(
        "reference",
        [
            "models:/",
            "models:/nobody/1",
            "models:/nobody@best-0.5",
            "models:/nobody/latest",
            "models:/nobody/Production",
            "models:/nobody",
            "runs:/0123",
            "runs:/0123/masks",
            "https://host/mask",
        ],
    )
    def test_what_is_not_there(self, reference: str, place: Registry, cache: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            fetch_mask_file(reference, place.uri)
        assert "\n" not in str(caught.value)
        assert not cache.exists()

    def test_file_that_is_no_mask_is_neither_run_nor_kept(
        self, study: Tracked, place: Registry, cache: Path, tmp_path: Path
    ) -> None:
        """A pickle that would make a file when it is read."""
        marker = tmp_path / "executed"

        class Hostile:
            def __reduce__(self) -> Any:
                return os.system, (f"touch {marker}",)

        study.track([*run_trial()])
        (run,) = study.find(naming.KIND_STUDY)
        evil = tmp_path / "mask.safetensors"
        evil.write_bytes(pickle.dumps(Hostile()))
        study.client.log_artifact(run.info.run_id, str(evil), "evil")
        with pytest.raises(MaskError, match="not a safetensors file"):
            fetch_mask_file(f"runs:/{run.info.run_id}/evil", place.uri)
        assert not marker.exists()
        assert not cache.exists()

    def test_server_that_does_not_answer(self, cache: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with pytest.raises(StorageError, match="does not answer") as caught:
            fetch_mask_file("models:/tiny@best-0.5", f"http://me:secret@127.0.0.1:{port}")
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not cache.exists()

    def test_database_that_does_not_exist_is_not_made(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"mlflow\.db: does not exist"):
            fetch_mask_file("models:/tiny/1", f"sqlite:///{tmp_path}/mlflow.db")
        assert list(tmp_path.glob("*.db")) == []


def test_server_that_does_not_answer_gets_nothing(write_mask: WriteMask) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = Registry(f"http://127.0.0.1:{port}", None, "tiny", "tiny", "id7")
    with pytest.raises(StorageError, match=r"does not answer .* by the same command") as caught:
        register_mask(place, write_mask())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "it's", " a", "a\nb"])
def test_name_that_mlflow_or_a_query_does_not_take(name: str) -> None:
    with pytest.raises(ConfigError, match="--model-name"):
        Registry("sqlite:////a.db", None, name, "tiny", "id7")


def test_evidence_that_is_missing(place: Registry, write_mask: WriteMask) -> None:
    files = write_mask()
    files.evidence.unlink()
    with pytest.raises(StorageError, match="is missing"):
        register_mask(place, files)
    assert list_versions(place) == []


def test_alias_has_no_dot() -> None:
    assert naming.name_alias(0.5) == "best-0_5"
    assert naming.name_alias(0.125) == "best-0_125"
