"""`distprune register`: the best masks of a study in MLflow."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from distprune import Mask
from distprune.cli.register import locate_registry
from distprune.errors import ConfigError, StorageError
from distprune.library.study_folder import StudyFolder, read_identifier
from tests.cli.best_masks import MASKS, STUDY_ID, write_ended_study
from tests.cli.conftest import RunCommand
from tests.cli.refusal import check_refusal
from tests.tracking.compact_models import save_compact

pytestmark = [
    pytest.mark.xdist_group("mlflow"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    monkeypatch.setenv("DISTPRUNE_CACHE", str(tmp_path / "cache"))
    return write_ended_study(tmp_path / "studies")


def test_best_masks_are_registered_beside_the_study(
    ended: StudyFolder, run_command: RunCommand
) -> None:
    from distprune.tracking.registry import fetch_mask_file

    finished = run_command("register", ended.root, "--json")
    assert finished.code == 0, finished.err
    masks = json.loads(finished.out)
    assert [(m["uri"], m["version"], m["is_new"]) for m in masks] == [
        ("models:/tiny@best-0_25", 1, True),
        ("models:/tiny@best-0_5", 2, True),
    ]
    store = f"sqlite:///{ended.tracking_database}"
    for milestone, mask in MASKS.items():
        assert Mask.load(fetch_mask_file(f"models:/tiny@best-{milestone}", store)) == mask
    assert ended.tracking_artifacts.is_dir()
    again = json.loads(run_command("register", ended.root, "--json").out)
    assert [(m["version"], m["is_new"]) for m in again] == [(1, False), (2, False)]


def test_one_milestone_with_its_model_under_another_name(
    ended: StudyFolder, run_command: RunCommand, tmp_path: Path
) -> None:
    folder = save_compact(tmp_path / "small", MASKS[0.5])
    finished = run_command(
        *("register", ended.root, "--milestone", "0.5", "--with-model", folder),
        *("--model-name", "mine", "--tracking-uri", f"sqlite:///{tmp_path}/registry/mlflow.db"),
    )
    assert finished.code == 0, finished.err
    assert "models:/mine@best-0_5  version 1, new, with its model" in finished.out
    assert f"MLFLOW_TRACKING_URI=sqlite:///{tmp_path}/registry/mlflow.db" in finished.out
    assert "mlflow models serve --env-manager local -m models:/mine@best-0_5" in finished.out
    assert (tmp_path / "registry" / "mlflow-artifacts").is_dir()
    assert not ended.tracking_database.exists()


def test_model_of_another_milestone(
    ended: StudyFolder, run_command: RunCommand, tmp_path: Path
) -> None:
    folder = save_compact(tmp_path / "small", MASKS[0.25])
    finished = run_command("register", ended.root, "--milestone", "0.5", "--with-model", folder)
    check_refusal(finished, 2, "was made of another mask", "--milestone")
    assert not ended.tracking_database.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--milestone", "0.3"), "0.3 is none of study 'tiny'; it has 0.25, 0.5"),
        (("--with-model", "small"), "name its milestone with --milestone"),
        (("--milestone", "0.5", "--with-model", "nowhere"), "no such folder"),
        (("--tracking-uri", "mlruns"), "must begin with http://"),
        (("--model-name", "a/b"), "--model-name: 'a/b'"),
    ],
)
def test_refusal(
    arguments: tuple[str, ...], words: str, ended: StudyFolder, run_command: RunCommand
) -> None:
    check_refusal(run_command("register", ended.root, *arguments), 2, words)
    assert not ended.tracking_database.exists()


def test_server_that_does_not_answer(ended: StudyFolder, run_command: RunCommand) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://me:secret@127.0.0.1:{port}"
    finished = run_command("register", ended.root, "--tracking-uri", address)
    check_refusal(finished, 2, "does not answer", "by the same command")
    assert "secret" not in finished.err
    assert len(finished.err.splitlines()) == 1


def test_study_that_has_not_ended(ended: StudyFolder, run_command: RunCommand) -> None:
    ended.leaderboard_json.unlink()
    check_refusal(run_command("register", ended.root), 2, "has no leaderboard")


def test_registry_is_where_the_study_is_tracked(tmp_path: Path) -> None:
    remote = write_ended_study(tmp_path / "a", tracking="http://host:5000")
    assert locate_registry(remote, None) == ("http://host:5000", None)
    assert locate_registry(remote, "http://other") == ("http://other", None)
    local = write_ended_study(tmp_path / "b")
    artifacts = str(local.tracking_artifacts)
    assert locate_registry(local, None) == (f"sqlite:///{local.tracking_database}", artifacts)
    with pytest.raises(ConfigError):
        locate_registry(local, "file:///runs")


def test_identifier(ended: StudyFolder) -> None:
    assert read_identifier(ended) == STUDY_ID
    ended.environment.write_text("{")
    with pytest.raises(StorageError, match=r"environment\.json cannot be read"):
        read_identifier(ended)
