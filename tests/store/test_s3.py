"""The store on S3: as on any storage, and when S3 is slow, refuses, or loses answers."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from distprune.errors import StorageError
from distprune.store import objects as module
from distprune.store.objects import Objects
from distprune.store.opening import open_objects
from distprune.store.store import Store
from tests.s3_server import S3Server

from .conftest import KEY, RECORD, refuse_to_write, write_two_files


@pytest.fixture
def objects(s3_uri: str) -> Objects:
    return open_objects(s3_uri)


@pytest.fixture
def store(s3_uri: str, tmp_path: Path) -> Store:
    return Store(f"{s3_uri}/store", cache=str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again for as long as the tests need, with short pauses."""
    for name, seconds in (("PATIENCE_S", 20.0), ("FIRST_PATIENCE_S", 20.0)):
        monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.05)


def test_objects(objects: Objects, tmp_path: Path) -> None:
    assert (objects.read("a"), objects.exists("a")) == (None, False)
    assert (objects.list_sizes(), objects.list_folders()) == ({}, [])
    assert objects.create("a/b", b"mine")
    assert not objects.create("a/b", b"theirs")
    assert objects.create("a/b", b"mine")  # as after an answer that was lost
    objects.write("c", b"1")
    objects.write("c", b"22")
    assert objects.list_sizes() == {"a/b": 4, "c": 2}
    assert objects.list_folders() == ["a"]
    assert objects.read_many(["a/b", "nothing", "c"]) == {"a/b": b"mine", "c": b"22"}
    (tmp_path / "up").write_bytes(bytes(100_000))
    objects.upload(tmp_path / "up", "d")
    assert objects.download("d", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == bytes(100_000)
    assert not objects.download("nothing", tmp_path / "none")
    age = objects.find_age("d")
    assert age is not None
    assert age < 60
    assert objects.find_age("nothing") is None
    objects.move_below("a", "x/y")
    objects.remove("c")
    objects.remove("c")
    objects.remove_below("nothing")
    assert objects.list_sizes() == {"x/y/b": 4, "d": 100_000}


def test_of_many_who_create_an_object_one_succeeds(objects: Objects) -> None:
    objects.read("first contact")
    barrier = threading.Barrier(8)
    outcomes: list[bool] = []

    def create(number: int) -> None:
        barrier.wait()
        outcomes.append(objects.create("a", str(number).encode()))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]


def test_entries(store: Store, tmp_path: Path) -> None:
    store.check_writable()
    assert store.remove_stale_temporaries() == 0
    assert (store.has(KEY), store.find(KEY)) == (False, None)
    store.commit(KEY, write_two_files, RECORD)
    other = Store(store.root, cache=str(tmp_path / "other"))
    entry = other.get_or_commit(KEY, refuse_to_write, RECORD)
    assert entry.path("train/data.bin").read_bytes() == bytes(range(256)) * 8
    assert list(other.keys()) == [KEY]
    (summary,) = other.list_entries()
    assert (summary.key, summary.record) == (KEY, RECORD)
    assert summary.num_bytes == other.count_bytes()
    assert other.remove_stale_temporaries() == 0
    assert other.remove(summary)
    assert (list(store.keys()), store.count_bytes()) == ([], 0)
    assert Store(store.root, cache=str(tmp_path / "third")).find(KEY) is None


def test_a_damaged_entry_is_set_aside_and_computed_again(
    store: Store, objects: Objects, tmp_path: Path
) -> None:
    store.commit(KEY, write_two_files, RECORD)
    (name,) = [name for name in objects.list_sizes() if name.endswith("data.bin")]
    objects.write(name, b"cut off")
    other = Store(store.root, cache=str(tmp_path / "other"))
    assert other.find(KEY) is None
    assert [item.name for item in other.list_leftovers()] == [f"damaged/{KEY}-1"]
    assert other.get_or_commit(KEY, write_two_files, RECORD).files
    assert other.verify(KEY) is None
    assert other.remove_damaged() == 1


def test_of_two_who_commit_a_key_the_first_is_kept(store: Store, tmp_path: Path) -> None:
    other = Store(store.root, cache=str(tmp_path / "other"))
    first = store.commit(KEY, write_two_files, {"who": "first"})
    assert other.commit(KEY, write_two_files, {"who": "second"}).manifest == first.manifest
    assert len(list(open_objects(store.root).list_sizes())) == 3


class TestTrouble:
    def test_a_slow_server_is_waited_for(self, store: Store, s3_server: S3Server) -> None:
        s3_server.delay_s = 0.3
        store.commit(KEY, write_two_files, RECORD)
        assert store.find(KEY) is not None

    @pytest.mark.parametrize("number", [1, 12])
    def test_refusals_pass(
        self,
        number: int,
        store: Store,
        s3_server: S3Server,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        s3_server.failures = number
        store.commit(KEY, write_two_files, RECORD)
        s3_server.failures = number
        entry = Store(store.root, cache=str(tmp_path / "other")).find(KEY)
        assert entry is not None
        assert entry.read_json("scores.json") == {"heads": [0.5, 1]}
        assert s3_server.failures == 0
        if number == 12:  # more than s3fs and botocore try
            messages = [record.getMessage() for record in caplog.records]
            assert any("trying again for up to" in message for message in messages)

    @pytest.mark.parametrize("number", [1, 7])
    def test_lost_answers_change_nothing(
        self, number: int, store: Store, s3_server: S3Server, tmp_path: Path
    ) -> None:
        s3_server.methods = ("PUT",)
        s3_server.lost_answers = number
        entry = store.commit(KEY, write_two_files, RECORD)
        assert s3_server.lost_answers == 0
        found = Store(store.root, cache=str(tmp_path / "other")).find(KEY)
        assert found is not None
        assert found.manifest == entry.manifest
        assert len(open_objects(store.root).list_sizes()) == 3

    def test_a_server_that_stays_down_is_given_up(
        self, store: Store, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "PATIENCE_S", 0.5)
        store.check_writable()
        s3_server.failures = 10**6
        with pytest.raises(StorageError) as caught:
            store.commit(KEY, write_two_files, RECORD)
        s3_server.mend()
        line = str(caught.value)
        assert line.startswith(f"storage '{store.root}': cannot upload 'entries/{KEY[:2]}/{KEY}/")
        assert "Please try again" in line
        assert "\n" not in line
        assert not store.has(KEY)
        assert store.commit(KEY, write_two_files, RECORD).files


class TestRefusals:
    def test_a_bucket_that_is_not_there_is_not_made(self, s3_uri: str, s3_server: S3Server) -> None:
        store = Store("s3://nobody-has-this/store")
        with pytest.raises(StorageError, match=r"cannot write .*bucket does not exist"):
            store.check_writable()
        assert not any(call.startswith("PUT /nobody-has-this ") for call in s3_server.calls)
        assert not store.has(KEY)

    def test_nobody_answers(
        self, s3_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setattr(module, "PATIENCE_S", 0.1)
        type(open_objects(s3_uri).filesystem).clear_instance_cache()
        with caplog.at_level(logging.ERROR), pytest.raises(StorageError) as caught:
            Store(f"{s3_uri}/store").check_writable()
        type(open_objects(s3_uri).filesystem).clear_instance_cache()
        assert "Could not connect" in str(caught.value)
        assert "check its address" in str(caught.value)


def test_listing_goes_beyond_one_answer(
    objects: Objects, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 lists a thousand objects at a time, here ten."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    names = {f"many/{number:02d}" for number in range(25)}
    for name in names:
        objects.write(name, b"x")
    s3_server.calls.clear()
    assert set(objects.list_sizes()) == names
    assert len(s3_server.calls) == 3
    assert set(objects.read_many(names)) == names
