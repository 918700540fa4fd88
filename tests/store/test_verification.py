import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distprune.store import content
from distprune.store.manifest import digest_manifest
from distprune.store.store import Store

from .conftest import KEY, RECORD, write_two_files


def entry_folder(store: Store) -> Path:
    return Path(store.root) / "entries" / KEY[:2] / KEY


def truncate(folder: Path) -> None:
    path = folder / "train" / "data.bin"
    path.write_bytes(path.read_bytes()[:-1])


def flip(folder: Path) -> None:
    path = folder / "train" / "data.bin"
    data = bytearray(path.read_bytes())
    data[1000] ^= 4
    path.write_bytes(data)
    later = path.stat().st_mtime_ns + 10**9  # the clock of a file system may tick slowly
    os.utime(path, ns=(later, later))


def lose(folder: Path) -> None:
    (folder / "scores.json").unlink()


def lose_all_files(folder: Path) -> None:
    shutil.rmtree(folder / "train")


def break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def change_record(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"rate": 0.5', '"rate": 0.6'))


def take_a_newer_schema(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 3'))


def stand_in_the_way(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


DAMAGES = [
    (truncate, "'train/data.bin' has 2047 bytes instead of 2048"),
    (flip, "'train/data.bin' has SHA-256"),
    (lose, "'scores.json' is missing"),
    (lose_all_files, "'train/data.bin' is missing"),
    (break_manifest, "the manifest cannot be read"),
    (lose_manifest, "'manifest.json' is missing"),
    (change_record, "does not match its checksum"),
    (take_a_newer_schema, "schema version 3, known is 2"),
    (stand_in_the_way, "'manifest.json' is missing"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_entry_is_set_aside_and_computed_again(
    local_store: Store,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    local_store.commit(KEY, write_two_files, RECORD)
    assert local_store.find(KEY) is not None
    damage(entry_folder(local_store))
    assert local_store.find(KEY) is None
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    aside = Path(local_store.root) / "damaged" / f"{KEY}-1"
    assert reason in warning.getMessage()
    assert str(aside) in warning.getMessage()
    assert aside.exists()
    assert not local_store.has(KEY)
    again = local_store.get_or_commit(KEY, write_two_files, RECORD)
    assert again.read_json("scores.json") == {"heads": [0.5, 1]}
    assert local_store.find(KEY) == again


def test_damaged_entries_of_one_key_are_numbered(local_store: Store) -> None:
    for _ in range(3):
        local_store.commit(KEY, write_two_files, RECORD)
        lose(entry_folder(local_store))
        assert local_store.find(KEY) is None
    damaged = Path(local_store.root) / "damaged"
    assert sorted(path.name for path in damaged.iterdir()) == [f"{KEY}-{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("damage", [truncate, lose_manifest, stand_in_the_way])
def test_commit_replaces_a_damaged_entry(
    local_store: Store, damage: Callable[[Path], None]
) -> None:
    local_store.commit(KEY, write_two_files, {"who": "first"})
    damage(entry_folder(local_store))
    assert local_store.commit(KEY, write_two_files, {"who": "second"}).record == {"who": "second"}
    found = local_store.find(KEY)
    assert found is not None
    assert found.record == {"who": "second"}


def test_an_entry_that_another_process_has_replaced_is_not_set_aside(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_store.commit(KEY, write_two_files, {"who": "first"})
    lose(entry_folder(local_store))
    original = content.check_file

    def check_late(path: Path, name: str, expected: content.FileRecord) -> None:
        monkeypatch.setattr("distprune.store.local.check_file", original)
        other = Store(local_store.root)
        assert other.find(KEY) is None
        other.commit(KEY, write_two_files, {"who": "second"})
        raise content.DamagedEntryError("seen before it was replaced")

    monkeypatch.setattr("distprune.store.local.check_file", check_late)
    found = local_store.find(KEY)
    assert found is not None
    assert found.record == {"who": "second"}
    assert len(list((Path(local_store.root) / "damaged").iterdir())) == 1


def test_only_the_version_that_was_judged_is_set_aside(store: Store) -> None:
    entry = store.commit(KEY, write_two_files, RECORD)
    judged = digest_manifest(entry.manifest.to_bytes())
    for another in ("0" * 64, None):
        assert entry.location.set_aside(KEY, another) is None
    assert store.has(KEY)
    assert entry.location.set_aside(KEY, judged) is not None
    assert not store.has(KEY)
    assert entry.location.set_aside(KEY, judged) is None


def test_a_damaged_entry_that_cannot_be_moved_is_not_used(
    local_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    local_store.commit(KEY, write_two_files, RECORD)
    lose(entry_folder(local_store))

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    assert local_store.find(KEY) is None
    assert "is damaged ('scores.json' is missing) and not used" in caplog.text


def test_files_are_hashed_once_until_they_change(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def check(path: Path, name: str, expected: content.FileRecord) -> None:
        checked.append(name)
        content.check_file(path, name, expected)

    monkeypatch.setattr("distprune.store.local.check_file", check)
    local_store.commit(KEY, write_two_files, RECORD)
    assert Store(local_store.root).find(KEY) is not None
    assert checked == []  # their digests were taken when they were committed
    path = entry_folder(local_store) / "scores.json"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    for _ in range(3):
        assert Store(local_store.root).find(KEY) is not None
    assert checked == ["scores.json", "train/data.bin"]
