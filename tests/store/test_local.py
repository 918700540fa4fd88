"""A store on a mount that remembers what was not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distprune.store.key import content_key
from distprune.store.store import Store


def test_entry_that_a_network_mount_believes_missing_is_looked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where another host has just committed what this one looked for in vain."""
    store, key = Store(str(tmp_path / "store")), content_key({"stage": "score"})
    store.commit(key, lambda folder: None, {})
    opened: list[Path] = []
    read_bytes = Path.read_bytes

    def read_unless_forgotten(path: Path) -> bytes:
        if path.name.endswith(".json") and path.parent.name == key and not opened:
            opened.append(path)
            raise FileNotFoundError(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read_unless_forgotten)
    folders: list[Any] = []
    monkeypatch.setattr(
        "distprune.store.local.LocalLocation._look_anew",
        lambda self, asked: folders.append(asked),
    )
    assert store.find(key) is not None
    assert folders == [key]


def test_looking_anew_for_what_was_never_there_harms_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    assert store.find(content_key({"stage": "score"})) is None
    assert not (tmp_path / "store").exists()
