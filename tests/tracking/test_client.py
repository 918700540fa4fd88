"""The environment of MLflow, and which errors are outages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distprune.core.credentials import hide_credentials
from distprune.errors import StorageError
from distprune.tracking.client import (
    ENVIRONMENT,
    is_outage,
    open_client,
    prepare_environment,
)

pytestmark = pytest.mark.xdist_group("mlflow")


def test_telemetry_is_off_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "false")
    prepare_environment()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["DO_NOT_TRACK"] == "false"


def test_mlflow_itself_says_that_telemetry_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_environment()
    from mlflow.telemetry import utils

    monkeypatch.setattr(utils, "_IS_IN_CI_ENV_OR_TESTING", False, raising=False)
    assert utils.is_telemetry_disabled()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("INTERNAL_ERROR", True),
        ("TEMPORARILY_UNAVAILABLE", True),
        ("PERMISSION_DENIED", True),
        ("REQUEST_LIMIT_EXCEEDED", True),
        ("INVALID_PARAMETER_VALUE", False),
        ("RESOURCE_DOES_NOT_EXIST", False),
    ],
)
def test_outage_by_mlflow_code(code: str, expected: bool) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos import databricks_pb2

    error = MlflowException("made up", error_code=getattr(databricks_pb2, code))
    assert is_outage(error) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionError("gone"), True),
        (OSError(28, "No space left on device"), True),
        (StorageError("disk full"), True),
        (FileNotFoundError("study.yaml"), False),
        (TypeError("our own mistake"), False),
    ],
)
def test_outage_by_type(error: Exception, expected: bool) -> None:
    assert is_outage(error) is expected


def test_credentials_are_hidden() -> None:
    text = "GET https://me:secret@host:5000/api and http://open.host/a@b"
    assert hide_credentials(text) == "GET https://***@host:5000/api and http://open.host/a@b"


def test_database_in_a_folder_that_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StorageError, match="tracking database folder"):
        open_client(f"sqlite:///{file}/below/mlflow.db")


def test_database_of_a_process_that_died_while_making_it_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow refuses a database that is half made for ever."""
    from mlflow import MlflowClient

    def die(*arguments: object, **options: object) -> None:
        (tmp_path / ".mlflow.db.1234").write_bytes(b"half a database")
        raise KeyboardInterrupt

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_experiments", die)
        with pytest.raises(KeyboardInterrupt):
            open_client(uri)
    assert not (tmp_path / "mlflow.db").exists()
    assert len(open_client(uri).search_experiments()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
