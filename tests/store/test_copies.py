"""Copies of a remote store: the longest unused go when the disk fills up, and come back."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from distprune.store.copies import FREE_SHARE, GRACE_S, make_room
from distprune.store.key import content_key
from distprune.store.store import Store

SIZE = 1000
TOTAL = 100 * SIZE
KEYS = [content_key(number) for number in range(4)]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A disk of which `others` bytes are taken by others than the copies."""
    taken = {"others": 0}
    cache = tmp_path / "cache"

    def measure(path: Path) -> Any:
        assert path == cache
        own = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
        return shutil._ntuple_diskusage(TOTAL, own, TOTAL - own - taken["others"])  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", measure)
    return taken


def commit(store: Store, key: str, age_s: float, cache: Path) -> None:
    store.commit(key, lambda folder: (folder / "w").write_bytes(bytes(SIZE)), {})
    moment = time.time() - age_s
    os.utime(cache / "entries" / key[:2] / key, (moment, moment))


def list_copies(cache: Path) -> set[str]:
    return {path.name for path in cache.glob("entries/??/*")}


def test_the_longest_unused_go_and_come_back(
    remote_store: Store, tmp_path: Path, disk: dict[str, int]
) -> None:
    cache = tmp_path / "cache"
    for number, key in enumerate(KEYS):
        commit(remote_store, key, GRACE_S + 1000 - number, cache)
    assert list_copies(cache) == set(KEYS)
    assert make_room(cache) == 0
    remote_store.find(KEYS[0])  # the oldest is used
    disk["others"] = round(TOTAL * (1 - FREE_SHARE)) - 2 * SIZE
    assert make_room(cache) == 2
    assert list_copies(cache) == {KEYS[0], KEYS[3]}
    entry = remote_store.find(KEYS[1])
    assert entry is not None
    assert entry.path("w").read_bytes() == bytes(SIZE)


def test_what_is_in_use_stays_on_a_full_disk(
    remote_store: Store, tmp_path: Path, disk: dict[str, int]
) -> None:
    cache = tmp_path / "cache"
    disk["others"] = TOTAL
    commit(remote_store, KEYS[0], GRACE_S - 100, cache)
    commit(remote_store, KEYS[1], GRACE_S + 100, cache)
    assert make_room(cache) == 1
    assert list_copies(cache) == {KEYS[0]}


def test_a_new_copy_makes_room(remote_store: Store, tmp_path: Path, disk: dict[str, int]) -> None:
    cache = tmp_path / "cache"
    commit(remote_store, KEYS[0], GRACE_S + 100, cache)
    disk["others"] = TOTAL
    commit(remote_store, KEYS[1], 0.0, cache)
    assert list_copies(cache) == {KEYS[1]}
    assert remote_store.find(KEYS[0]) is not None
