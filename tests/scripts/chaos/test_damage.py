"""Damage is what it says, and the product notices each."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.library.history import History, Outcome, TrialEnded
from distprune.library.study_folder import StudyFolder
from distprune.store.key import content_key
from distprune.store.store import Store
from scripts.chaos.damage import (
    TORN_EVENT,
    damage_journal,
    damage_store,
    flip,
    tear_history,
    truncate,
)

SEEDS = st.integers(0, 2**31)


@given(SEEDS, st.binary(min_size=1, max_size=300))
def test_a_flip_changes_one_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("flip") / "file"
    path.write_bytes(data)
    flip(path, Random(seed))
    after = path.read_bytes()
    assert len(after) == len(data)
    assert sum((a ^ b).bit_count() for a, b in zip(data, after, strict=True)) == 1


@given(SEEDS, st.binary(min_size=1, max_size=300))
def test_a_cut_leaves_a_beginning(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("cut") / "file"
    path.write_bytes(data)
    truncate(path, Random(seed))
    after = path.read_bytes()
    assert len(after) < len(data)
    assert data.startswith(after)


@pytest.mark.parametrize("seed", range(12))
def test_the_store_notices_every_damage(tmp_path: Path, seed: int) -> None:
    store = Store(str(tmp_path / "store"))
    keys = [content_key({"number": number}) for number in range(4)]
    for key in keys:
        store.commit(key, lambda folder: (folder / "weights").write_bytes(b"weights" * 50), {})
    damaged = damage_store(tmp_path / "store", Random(seed))
    assert 1 <= len(damaged) <= 3
    assert {key for key in keys if store.verify(key) is not None} == set(damaged)
    assert all(store.find(key) is None for key in damaged)


def test_nothing_to_damage(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "tiny")
    assert damage_store(folder.store, Random(0)) == {}
    assert damage_journal(folder, Random(0)) is None
    assert not tear_history(folder)


def test_the_journal_is_removed_cut_or_flipped(tmp_path: Path) -> None:
    folder, done = StudyFolder(tmp_path, "tiny"), set()
    folder.root.mkdir()
    for seed in range(20):
        folder.optuna_journal.write_text('{"op_code": 0}\n' * 9)
        before = folder.optuna_journal.read_bytes()
        words = damage_journal(folder, Random(seed))
        assert words is not None
        done.add(words.split()[0])
        there = folder.optuna_journal.exists()
        assert (words == "removed") is not there
        assert not there or folder.optuna_journal.read_bytes() != before
    assert done == {"removed", "cut", "bit"}


def test_a_torn_event_is_no_event(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "tiny")
    history = History(folder.history)
    history.append(TrialEnded(0, 1.0, Outcome.COMPLETED))
    assert tear_history(folder)
    assert folder.history.read_bytes().endswith(TORN_EVENT)
    history.append(TrialEnded(1, 2.0, Outcome.COMPLETED))
    assert [event.number for event in history.events()] == [0, 1]
