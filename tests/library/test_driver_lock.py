"""The lock behind a URI: one driver, whatever dies, and nobody alive is driven out."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distprune.errors import StorageError, StudyExistsError
from distprune.library import driver_lock as module
from distprune.library.driver_lock import DriverLock
from distprune.library.history import History
from distprune.library.pins import find_pins, find_session
from distprune.library.study_folder import StudyFolder
from distprune.search.driver_lease import drive_study
from distprune.store.objects import Objects
from distprune.store.opening import open_objects
from distprune.store.process import Process
from tests.library.records import make_start

ELSEWHERE = Process("other.0", 4711, 7)


@pytest.fixture
def storage() -> Objects:
    return open_objects(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def take(storage: Objects) -> Iterator[Callable[..., DriverLock]]:
    """Take the lock in the name of a process, and let go of it in the end."""
    taken: list[DriverLock] = []

    def take(process: Process | None = None) -> DriverLock:
        lock = DriverLock(storage, "mine")
        if process is not None:
            lock._own = replace(lock._own, process=process)
        lock.take()
        taken.append(lock)
        return lock

    yield take
    for lock in taken:
        lock._has_ended.set()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch for 0.4 s; show no life by oneself."""
    monkeypatch.setattr(module, "SILENCE_S", 0.4)
    monkeypatch.setattr(module, "POLL_S", 0.02)


def list_objects(storage: Objects) -> dict[str, Any]:
    """Return what the objects of the lock say, by name."""
    found = storage.read_many(storage.list_sizes())
    return {name.rpartition("/")[2]: json.loads(data) for name, data in found.items()}


def test_a_lock_is_taken_and_released(storage: Objects, take: Callable[..., DriverLock]) -> None:
    first = take()
    ((name, value),) = list_objects(storage).items()
    assert (name, value["pid"], value["has_ended"]) == ("00000001.json", os.getpid(), False)
    assert set(value) == {"host", "pid", "start", "token", "beat", "has_ended"}
    first.release()
    assert list_objects(storage)["00000001.json"]["has_ended"]
    assert DriverLock(storage, "mine").find_holder() is None
    take()
    assert list(list_objects(storage)) == ["00000002.json"]


def test_a_driver_on_this_host_is_named_at_once(
    storage: Objects, take: Callable[..., DriverLock]
) -> None:
    take()
    started = time.monotonic()
    with pytest.raises(StudyExistsError) as caught:
        take()
    assert time.monotonic() - started < 5
    assert str(caught.value).startswith(f"study 'mine': process {os.getpid()} on ")
    assert "wait for it to end, or give this study another name" in str(caught.value)
    take_other = DriverLock(storage, "other")
    take_other.take()
    take_other.release()


def test_a_dead_driver_of_this_host_holds_nothing(
    take: Callable[..., DriverLock], caplog: pytest.LogCaptureFixture
) -> None:
    own = DriverLock(open_objects("memory://x"), "x")._own.process
    take(replace(own, pid=4194999))
    take()
    assert "process 4194999 on " in caplog.text
    assert "died; its lock is broken" in caplog.text


@pytest.mark.usefixtures("short")
class TestAnotherHost:
    def test_silence_breaks_the_lock(
        self, storage: Objects, take: Callable[..., DriverLock], caplog: pytest.LogCaptureFixture
    ) -> None:
        old = take(ELSEWHERE)
        told: list[str] = []
        lock = DriverLock(storage, "mine")
        lock.take(told.append)
        lock.release()
        assert told == ["Watching for 0.4 s whether process 4711 on other lives"]
        assert "has shown no life for 0.4 s" in caplog.text
        assert list(list_objects(storage)) == ["00000002.json"]
        with pytest.raises(StudyExistsError, match=r"process \d+ on .* has taken it over"):
            old.check(trust_s=0.0)
        with pytest.raises(StudyExistsError):  # and ever after
            old.check()

    def test_life_keeps_it(
        self,
        take: Callable[..., DriverLock],
        storage: Objects,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(module, "SILENCE_S", 60.0)
        old = take(ELSEWHERE)
        timer = threading.Timer(0.2, old.check, (0.0,))
        timer.start()
        with pytest.raises(StudyExistsError, match="process 4711 on other is working on it"):
            take()
        timer.join()
        assert list(list_objects(storage)) == ["00000001.json"]

    def test_it_ends_while_it_is_watched(
        self, take: Callable[..., DriverLock], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "SILENCE_S", 60.0)
        old = take(ELSEWHERE)
        timer = threading.Timer(0.1, old.release)
        timer.start()
        started = time.monotonic()
        take()
        assert time.monotonic() - started < 50
        timer.join()

    def test_of_several_who_break_it_one_succeeds(
        self, storage: Objects, take: Callable[..., DriverLock]
    ) -> None:
        take(ELSEWHERE)
        outcomes: list[str] = []
        barrier = threading.Barrier(5)

        def try_to_take() -> None:
            barrier.wait()
            try:
                take()
            except StudyExistsError:
                outcomes.append("refused")
            else:
                outcomes.append("taken")

        threads = [threading.Thread(target=try_to_take) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["refused"] * 4 + ["taken"]

    def test_the_late_life_of_a_broken_driver_changes_nothing(
        self, storage: Objects, take: Callable[..., DriverLock]
    ) -> None:
        old = take(ELSEWHERE)
        new = take()
        with pytest.raises(StudyExistsError):
            old.check(trust_s=0.0)
        old.release()
        new.check(trust_s=0.0)
        assert list_objects(storage)["00000002.json"]["pid"] == os.getpid()
        assert not list_objects(storage)["00000002.json"]["has_ended"]
        third = DriverLock(storage, "mine")
        new.release()
        third.take()
        third.release()
        assert list(list_objects(storage)) == ["00000003.json"]


def test_a_driver_shows_that_it_lives(
    storage: Objects, take: Callable[..., DriverLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    take()
    end = time.monotonic() + 10
    while list_objects(storage)["00000001.json"]["beat"] < 3:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_driver_asks_again_after_it_slept(
    storage: Objects, take: Callable[..., DriverLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a laptop does, or a process that was stopped: no beat was due in between."""
    lock = take()
    now = module._now()
    lock.check()
    assert list_objects(storage)["00000001.json"]["beat"] == 0  # it was asked a moment ago
    monkeypatch.setattr(module, "_now", lambda: now + module.TRUST_S + 1)
    lock.check()
    assert list_objects(storage)["00000001.json"]["beat"] == 1


def test_a_storage_that_replaces_objects_is_refused(
    storage: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = type(storage.filesystem)
    original = filesystem.pipe_file

    def overwrite(self: Any, path: str, data: bytes, **options: Any) -> None:
        original(self, path, data)

    monkeypatch.setattr(filesystem, "pipe_file", overwrite)
    with pytest.raises(StorageError, match="replaces objects that may only be created"):
        DriverLock(storage, "mine").take()
    assert list_objects(storage) == {}


def test_a_damaged_lock_is_named(storage: Objects) -> None:
    storage.write(".mine.lock/00000003.json", b"{")
    with pytest.raises(StorageError, match=r"lock .*/\.mine\.lock/00000003\.json: cannot be read"):
        DriverLock(storage, "mine").take()


class TestDrive:
    @pytest.fixture
    def folder(self, storage: Objects, tmp_path: Path) -> StudyFolder:
        return StudyFolder(tmp_path / "cache", "mine", storage.uri)

    def begin(self, folder: StudyFolder) -> None:
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.environment.write_text('{"study_id": "x"}')

    def test_what_is_saved_is_there_for_the_next_host(
        self, folder: StudyFolder, tmp_path: Path
    ) -> None:
        with drive_study(folder) as drive:
            self.begin(folder)
            drive.save()
            drive.open_history().append(make_start())
        other = StudyFolder(tmp_path / "other", "mine", folder.uri)
        with drive_study(other) as drive:
            assert list(drive.open_history().events()) == [make_start()]
            drive.open_history().append(make_start(1))
        folder.pull()
        assert list(History(folder.history).events()) == [make_start(), make_start(1)]

    def test_a_second_driver_is_refused(self, folder: StudyFolder, tmp_path: Path) -> None:
        other = StudyFolder(tmp_path / "other", "mine", folder.uri)
        with drive_study(folder):
            with pytest.raises(StudyExistsError, match="is working on it"), drive_study(other):
                pytest.fail("two drivers")
            assert find_session(other) is not None
        assert find_session(other) is None

    def test_a_driver_that_lost_its_lock_writes_nothing(
        self, folder: StudyFolder, storage: Objects, caplog: pytest.LogCaptureFixture
    ) -> None:
        with drive_study(folder) as drive:
            self.begin(folder)
            drive.save()
            history = drive.open_history()
            history.append(make_start())
            thief = replace(DriverLock(storage, "mine")._own, process=ELSEWHERE)
            assert storage.create(".mine.lock/00000002.json", thief.to_bytes())
            assert drive.lock is not None
            with pytest.raises(StudyExistsError):
                drive.lock.check(trust_s=0.0)
            with pytest.raises(StudyExistsError, match="process 4711 on other has taken it over"):
                history.append(make_start(1))
            (folder.root / "a").write_text("x")
            with pytest.raises(StudyExistsError):
                drive.save()
        names = storage.list_sizes("mine")
        assert [name for name in names if "history/" in name] == ["mine/history/00000000.json"]
        assert "mine/a" not in names
        assert not list_objects(storage.below(".mine.lock"))["00000002.json"]["has_ended"]

    def test_weights_of_a_running_study_are_all_in_use(self, folder: StudyFolder) -> None:
        """Behind a URI nothing shows when an entry was last found."""
        with drive_study(folder) as drive:
            self.begin(folder)
            folder.configuration.write_text("milestones: [0.5]\n")
            drive.save()
            drive.open_history().append(make_start())
            other = StudyFolder(folder.storage.with_name("other"), "mine", folder.uri)
            pins = find_pins(other.place, [])
            assert (pins.running, pins.in_use_since) == (("mine",), float("-inf"))
        assert find_pins(other.place, []).running == ()
