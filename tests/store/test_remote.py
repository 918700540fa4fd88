import errno
import logging
from pathlib import Path
from typing import Any

import fsspec
import pytest

from distprune.errors import StorageError
from distprune.store.store import Store

from .conftest import KEY, RECORD, write_two_files


def open_elsewhere(store: Store, tmp_path: Path) -> Store:
    """Open a store as another machine does, without copies."""
    return Store(store.root, cache=str(tmp_path / "elsewhere"))


def list_objects(store: Store) -> list[str]:
    filesystem, prefix = fsspec.core.url_to_fs(store.root)
    return sorted(path.removeprefix(f"{prefix}/") for path in filesystem.find(prefix))


def find_object(store: Store, name: str) -> str:
    filesystem, prefix = fsspec.core.url_to_fs(store.root)
    [path] = [path for path in filesystem.find(prefix) if path.endswith(f"/{name}")]
    return str(path)


def test_another_machine_reads_the_entry_through_its_cache(
    remote_store: Store, tmp_path: Path
) -> None:
    committed = remote_store.commit(KEY, write_two_files, RECORD)
    found = open_elsewhere(remote_store, tmp_path).find(KEY)
    assert found is not None
    assert found.manifest == committed.manifest
    assert found.path("train/data.bin").is_relative_to(tmp_path / "elsewhere")
    assert found.path("train/data.bin").read_bytes() == bytes(range(256)) * 8


def test_manifest_is_uploaded_last(remote_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem = fsspec.filesystem("memory")
    uploaded: list[str] = []
    for name, position in (("put_file", 1), ("pipe_file", 0)):
        original = getattr(type(filesystem), name)

        def record(
            self: Any,
            *arguments: Any,
            original: Any = original,
            position: int = position,
            **options: Any,
        ) -> Any:
            uploaded.append(arguments[position].rpartition("/")[2])
            return original(self, *arguments, **options)

        monkeypatch.setattr(type(filesystem), name, record)
    remote_store.commit(KEY, write_two_files, RECORD)
    assert uploaded == ["scores.json", "data.bin", "manifest.json"]


def test_each_file_is_downloaded_once(
    remote_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = fsspec.filesystem("memory")
    downloads: list[str] = []
    original = type(filesystem).get_file

    def record(self: Any, source: str, target: str, **options: Any) -> Any:
        downloads.append(source.rpartition("/")[2])
        return original(self, source, target, **options)

    monkeypatch.setattr(type(filesystem), "get_file", record)
    entry = remote_store.commit(KEY, write_two_files, RECORD)
    entry.path("scores.json")
    assert downloads == []  # the writer keeps its files
    for _ in range(2):
        found = open_elsewhere(remote_store, tmp_path).find(KEY)
        assert found is not None
        found.path("scores.json")
    assert downloads == ["scores.json", "data.bin"]


def test_a_wrong_copy_is_downloaded_again(remote_store: Store) -> None:
    entry = remote_store.commit(KEY, write_two_files, RECORD)
    path = entry.path("scores.json")
    path.write_text("[]")
    found = remote_store.find(KEY)
    assert found is not None
    assert found.read_json("scores.json") == {"heads": [0.5, 1]}
    path.unlink()
    assert found.read_json("scores.json") == {"heads": [0.5, 1]}


@pytest.mark.parametrize("name", ["data.bin", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "lose"])
def test_a_damaged_remote_entry_is_set_aside_and_computed_again(
    remote_store: Store,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: str,
) -> None:
    remote_store.commit(KEY, write_two_files, RECORD)
    filesystem = fsspec.filesystem("memory")
    path = find_object(remote_store, name)
    data = filesystem.cat_file(path)
    filesystem.rm_file(path)
    if damage == "truncate":
        filesystem.pipe_file(path, data[:-20])
    if damage == "flip":
        filesystem.pipe_file(path, data[:100] + bytes([data[100] ^ 1]) + data[101:])
    other = open_elsewhere(remote_store, tmp_path)
    assert other.find(KEY) is None
    if (name, damage) != ("manifest.json", "lose"):  # no manifest: not committed yet
        [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert f"damaged/{KEY}-1" in warning.getMessage()
        assert any(path.startswith(f"damaged/{KEY}-1/") for path in list_objects(remote_store))
    assert not other.has(KEY)
    again = other.get_or_commit(KEY, write_two_files, RECORD)
    assert other.find(KEY) == again
    assert Store(other.root, str(tmp_path / "third")).find(KEY) is not None


def test_an_upload_that_fails_leaves_nothing(
    remote_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = fsspec.filesystem("memory")
    original = type(filesystem).put_file

    def fail_second(self: Any, source: str, target: str, **options: Any) -> Any:
        if target.endswith("data.bin"):
            raise OSError(errno.EIO, "connection lost")
        return original(self, source, target, **options)

    monkeypatch.setattr(type(filesystem), "put_file", fail_second)
    with pytest.raises(
        StorageError, match=r"storage 'memory://.*cannot upload .*lost; check its address"
    ):
        remote_store.commit(KEY, write_two_files, RECORD)
    assert list_objects(remote_store) == []
    assert not remote_store.has(KEY)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_check_writable_tells_what_the_file_system_says(
    remote_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("Unable to locate\ncredentials")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", refuse)
    with pytest.raises(StorageError, match="Unable to locate credentials; check its address"):
        remote_store.check_writable()


def test_lease_of_a_remote_store_lets_everyone_in(remote_store: Store) -> None:
    with remote_store.lease(KEY, timeout_s=0), remote_store.lease(KEY, timeout_s=0):
        assert list_objects(remote_store) == []
