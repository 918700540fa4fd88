"""What a process leaves that was killed, or is silent for so long that another one takes over."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from distprune.errors import StorageError
from distprune.store.paths import PATHS
from distprune.store.store import Store

KEY = "0" * 64
OTHER_KEY = "1" * 64
RECORD = {"stage": "score"}
SILENT_S = 3600


def write(folder: Path) -> None:
    (folder / "scores.txt").write_text("1 2 3")


def leave_lease(store: Store, key: str, age_s: float) -> None:
    """Leave the lease of a process of another host, last refreshed so many seconds ago."""
    path = Path(store.root) / PATHS.lease(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": "elsewhere.0", "pid": 7, "start": 5, "token": "x"}))
    moment = time.time() - age_s
    os.utime(path, (moment, moment))


def leave_temporary(store: Store, owner: str = "elsewhere.0~7~5") -> Path:
    folder = Path(store.root) / PATHS.temporary / f"{owner}~aa"
    folder.mkdir(parents=True)
    (folder / "weights").write_text("half")
    return folder


def test_files_of_a_lost_process_go_with_its_lease(local_store: Store) -> None:
    leave_lease(local_store, KEY, SILENT_S)
    half = leave_temporary(local_store)
    of_another = leave_temporary(local_store, "elsewhere.0~70~5")
    local_store.get_or_commit(KEY, write, RECORD)
    assert not half.exists()
    assert of_another.exists()


def test_they_stay_if_another_lease_shows_it_alive(local_store: Store) -> None:
    leave_lease(local_store, KEY, SILENT_S)
    leave_lease(local_store, OTHER_KEY, 0)
    half = leave_temporary(local_store)
    local_store.get_or_commit(KEY, write, RECORD)
    assert half.exists()


def test_process_whose_files_were_removed_does_it_again(local_store: Store) -> None:
    """It was stalled, not gone."""
    attempts = []

    def write_slowly(folder: Path) -> None:
        attempts.append(folder)
        if len(attempts) == 1:
            shutil.rmtree(folder)
        write(folder)

    entry = local_store.get_or_commit(KEY, write_slowly, RECORD)
    assert len(attempts) == 2
    assert entry.path("scores.txt").read_text() == "1 2 3"


def test_commit_without_a_lease_says_so(local_store: Store) -> None:
    with pytest.raises(StorageError, match="no sign of life for 60 s"):
        local_store.commit(KEY, shutil.rmtree, RECORD)
    assert not local_store.has(KEY)
