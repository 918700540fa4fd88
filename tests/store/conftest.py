"""Stores to test with: one on a disk, one behind an fsspec URI."""

import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from distprune.store import objects
from distprune.store.key import JSON, content_key
from distprune.store.store import Store

RECORD: dict[str, JSON] = {"stage": "score", "seed": 3, "rate": 0.5}
KEY = content_key(RECORD)


def write_two_files(folder: Path) -> None:
    (folder / "train").mkdir()
    (folder / "train" / "data.bin").write_bytes(bytes(range(256)) * 8)
    (folder / "scores.json").write_text('{"heads": [0.5, 1]}')


def refuse_to_write(folder: Path) -> None:
    raise AssertionError("the entry is there, nothing has to be computed")


def list_files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "guard"
    )


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up at once on a storage in trouble; the tests of patience set it themselves."""
    monkeypatch.setattr(objects, "PATIENCE_S", 0.0)
    monkeypatch.setattr(objects, "FIRST_PATIENCE_S", 0.0)


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def remote_store(tmp_path: Path) -> Store:
    return Store(f"memory://{uuid.uuid4().hex}/store", cache=str(tmp_path / "cache"))


@pytest.fixture(params=["local_store", "remote_store"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def start_python() -> Callable[..., "subprocess.Popen[str]"]:
    def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", script, *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)

    return start
