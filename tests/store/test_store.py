import pickle
import re
import sys
import time
from pathlib import Path

import pytest

from distprune.errors import StorageError
from distprune.store.key import content_key
from distprune.store.store import Store

from .conftest import KEY, RECORD, list_files, refuse_to_write, write_two_files


def test_round_trip(store: Store) -> None:
    assert not store.has(KEY)
    assert store.find(KEY) is None
    committed = store.commit(KEY, write_two_files, RECORD)
    found = store.find(KEY)
    assert store.has(KEY)
    assert found == committed
    assert found is not None
    assert found.key == KEY
    assert found.record == RECORD
    assert found.files == ("scores.json", "train/data.bin")
    assert found.path("train/data.bin").read_bytes() == bytes(range(256)) * 8
    assert found.read_json("scores.json") == {"heads": [0.5, 1]}


def test_local_layout(local_store: Store, tmp_path: Path) -> None:
    local_store.commit(KEY, write_two_files, RECORD)
    entry = f"entries/{KEY[:2]}/{KEY}"
    assert list_files(tmp_path / "store") == [
        f"{entry}/manifest.json",
        f"{entry}/scores.json",
        f"{entry}/train/data.bin",
    ]
    assert list((tmp_path / "store" / "temporary").iterdir()) == []


def test_an_entry_knows_what_it_cost(store: Store) -> None:
    def write(folder: Path) -> None:
        time.sleep(0.05)
        (folder / "a").write_bytes(b"123")
        (folder / "b").write_bytes(b"45")

    key = content_key("cost")
    made = store.commit(key, write, {})
    found = store.find(key)
    assert found is not None
    assert (found.seconds, found.num_bytes) == (made.seconds, 5)
    assert 0.05 <= found.seconds < 5.0


def test_an_entry_may_have_a_record_only(store: Store) -> None:
    store.commit(KEY, lambda folder: None, {"metric": 0.5})
    found = store.find(KEY)
    assert found is not None
    assert found.files == ()
    assert found.record == {"metric": 0.5}


def test_keys_and_statistics(store: Store) -> None:
    assert list(store.keys()) == []
    assert store.statistics().num_entries == store.statistics().num_bytes == 0
    keys = [content_key(number) for number in range(5)]
    for key in keys:
        store.commit(key, write_two_files, RECORD)
    content = 256 * 8 + len('{"heads": [0.5, 1]}')
    assert list(store.keys()) == sorted(keys)
    assert store.statistics().num_entries == 5
    assert 5 * content < store.statistics().num_bytes < 5 * (content + 2000)


def test_unknown_files_are_refused(store: Store) -> None:
    entry = store.commit(KEY, write_two_files, RECORD)
    for name in ("weights", "../x", "/etc/passwd", "manifest.json", "train"):
        with pytest.raises(StorageError, match=r"its files: scores\.json, train/data\.bin"):
            entry.path(name)


def test_a_file_that_is_no_json_is_refused(store: Store) -> None:
    entry = store.commit(KEY, write_two_files, RECORD)
    with pytest.raises(StorageError, match=r"'train/data.bin' of entry .* is not JSON"):
        entry.read_json("train/data.bin")


def test_a_file_that_vanished_since_is_refused(local_store: Store) -> None:
    entry = local_store.commit(KEY, write_two_files, RECORD)
    entry.path("scores.json").unlink()
    with pytest.raises(StorageError, match="removed or damaged since it was found"):
        entry.path("scores.json")


def test_an_error_while_writing_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        write_two_files(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.commit(KEY, write, RECORD)
    assert not store.has(KEY)
    assert list(store.keys()) == []
    assert list_files(tmp_path) == []
    assert [path for path in tmp_path.rglob("*") if "~" in path.name] == []


def test_errors_of_the_writer_itself_pass(store: Store) -> None:
    def write(folder: Path) -> None:
        (folder / "a").mkdir()
        (folder / "a").mkdir()

    with pytest.raises(FileExistsError):
        store.commit(KEY, write, RECORD)
    with pytest.raises(ValueError, match="is the store's own"):
        store.commit(KEY, lambda folder: (folder / "manifest.json").touch(), RECORD)
    with pytest.raises(TypeError, match=r"record\['a'\] is a builtins.set"):
        store.commit(KEY, refuse_to_write, {"a": {1}})  # type: ignore[dict-item]
    assert not store.has(KEY)


def test_keys_that_are_none_are_refused(store: Store) -> None:
    for call in (store.has, store.find):
        with pytest.raises(ValueError, match="use content_key"):
            call("../../x")
    with pytest.raises(ValueError, match="use content_key"):
        store.get_or_commit("abc", write_two_files, RECORD)


def test_the_first_of_two_commits_is_kept(store: Store, tmp_path: Path) -> None:
    def write_late(folder: Path) -> None:
        Store(store.root, str(tmp_path / "other")).commit(KEY, write_two_files, {"who": "first"})
        (folder / "scores.json").write_text("2")

    entry = store.commit(KEY, write_late, {"who": "second"})
    assert entry.record == {"who": "first"}
    assert entry.read_json("scores.json") == {"heads": [0.5, 1]}
    assert store.find(KEY) == entry
    assert store.statistics().num_entries == 1
    content = 256 * 8 + len('{"heads": [0.5, 1]}')
    assert store.statistics().num_bytes < content + 2000
    assert [path for path in tmp_path.rglob("*") if "~" in path.name] == []


def test_get_or_commit_writes_once(store: Store) -> None:
    first = store.get_or_commit(KEY, write_two_files, RECORD)
    assert store.get_or_commit(KEY, refuse_to_write, RECORD) == first


def test_stores_and_entries_survive_pickling(store: Store) -> None:
    entry = store.commit(KEY, write_two_files, RECORD)
    again = pickle.loads(pickle.dumps(store))
    assert again.root == store.root
    assert again.find(KEY) == entry
    assert pickle.loads(pickle.dumps(entry)).read_json("scores.json") == {"heads": [0.5, 1]}


def test_nothing_in_the_store_unpickles() -> None:
    package = Path(sys.modules["distprune.store.store"].__file__ or "").parent
    for path in package.glob("*.py"):
        assert not re.search(r"^\s*(import|from)\s+\w*pickle", path.read_text(), re.MULTILINE)
