"""Objects behind a URI: whole, created once, and tried again while trouble may pass."""

from __future__ import annotations

import errno
import logging
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from distprune.errors import StorageError
from distprune.store import objects as module
from distprune.store.objects import Objects
from distprune.store.opening import open_objects

Memory = type(fsspec.filesystem("memory"))


@pytest.fixture
def objects() -> Objects:
    return open_objects(f"memory://{uuid.uuid4().hex}/some/prefix/")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the clock run by the pauses alone, and note them."""
    noted: list[float] = []
    monkeypatch.setattr(module.time, "sleep", noted.append)
    monkeypatch.setattr(module.time, "monotonic", lambda: sum(noted))
    monkeypatch.setattr(module, "PATIENCE_S", 30.0)
    monkeypatch.setattr(module, "FIRST_PATIENCE_S", 2.0)
    return noted


def fail(
    monkeypatch: pytest.MonkeyPatch, method: str, errors: Iterator[Exception]
) -> Callable[..., Any]:
    """Let calls of a method fail with these errors, and succeed after them."""
    original: Callable[..., Any] = getattr(Memory, method)

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        error = next(errors, None)
        if error is not None:
            raise error
        return original(self, *arguments, **options)

    monkeypatch.setattr(Memory, method, call)
    return original


def repeat(error: Exception, times: int) -> Iterator[Exception]:
    return iter([error] * times)


def test_what_is_written_is_read(objects: Objects, tmp_path: Path) -> None:
    assert objects.uri.endswith("/some/prefix")
    assert (objects.read("a/b"), objects.exists("a/b"), objects.list_sizes()) == (None, False, {})
    objects.write("a/b", b"one")
    objects.write("a/b", b"three")
    objects.write("a/c/d", b"")
    assert (objects.read("a/b"), objects.exists("a/b")) == (b"three", True)
    assert objects.list_sizes() == {"a/b": 5, "a/c/d": 0}
    assert objects.list_sizes("a/c") == {"a/c/d": 0}
    assert objects.list_folders() == ["a"]
    assert objects.below("a").read("b") == b"three"
    assert objects.below("a").list_folders() == ["c"]
    (tmp_path / "up").write_bytes(b"file")
    objects.upload(tmp_path / "up", "e")
    assert objects.download("e", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == b"file"
    assert not objects.download("f", tmp_path / "none")
    age = objects.find_age("e")
    assert age is not None
    assert 0 <= age < 60
    assert objects.find_age("f") is None


def test_many_are_read_in_batches(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    for number in range(5):
        objects.write(f"n/{number}", str(number).encode())
    names = [f"n/{number}" for number in range(7)]
    found = objects.read_many(names)
    assert found == {f"n/{number}": str(number).encode() for number in range(5)}
    assert objects.read_many([]) == {}


def test_removal_and_moves(objects: Objects) -> None:
    for name in ("a/1", "a/b/2", "ab/3", "c"):
        objects.write(name, name.encode())
    objects.remove("c")
    objects.remove("c")
    objects.move_below("a", "x/y")
    objects.move_below("nothing", "z")
    assert objects.list_sizes() == {"x/y/1": 3, "x/y/b/2": 5, "ab/3": 4}
    assert objects.read("x/y/b/2") == b"a/b/2"
    objects.remove_below("x")
    objects.remove_below("x")
    assert objects.list_sizes() == {"ab/3": 4}


def test_what_is_there_is_never_created_again(objects: Objects) -> None:
    assert objects.create("a", b"mine")
    assert not objects.create("a", b"theirs")
    assert objects.read("a") == b"mine"


def test_creation_whose_answer_was_lost_is_recognised(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    """The object is there when the attempt is repeated, and it is ours."""
    original = Memory.pipe_file

    def lose_answer(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        monkeypatch.setattr(Memory, "pipe_file", original)
        raise TimeoutError("no answer")

    monkeypatch.setattr(Memory, "pipe_file", lose_answer)
    assert objects.create("a", b"mine")
    assert objects.read("a") == b"mine"
    assert pauses == [0.2]


@pytest.mark.parametrize("status", [412, 400])
def test_servers_say_differently_that_an_object_is_there(
    status: int, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """s3fs knows one way of S3 to say so; others come as an error of an argument."""
    objects.write("a", b"theirs")
    cause = RuntimeError("At least one of the pre-conditions did not hold")
    cause.response = {"ResponseMetadata": {"HTTPStatusCode": status}}  # type: ignore[attr-defined]
    error = OSError(errno.EINVAL, "refused")
    error.__cause__ = cause
    fail(monkeypatch, "pipe_file", repeat(error, 9))
    if status == 412:
        assert not objects.create("a", b"mine")
    else:
        with pytest.raises(StorageError, match=r"cannot create 'a'.*refused"):
            objects.create("a", b"mine")


def test_trouble_that_passes_is_waited_out(
    objects: Objects,
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    objects.write("a", b"x")
    fail(monkeypatch, "cat_file", repeat(OSError(errno.EBUSY, "Please reduce\nyour rate"), 5))
    assert objects.read("a") == b"x"
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2]
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "cannot read 'a' (" in warning.getMessage()
    assert "trying again for up to 30 s" in warning.getMessage()
    assert "\n" not in warning.getMessage()


def test_patience_ends_in_one_line(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    objects.write("a", b"x")
    fail(monkeypatch, "pipe_file", repeat(RuntimeError("Could not\nconnect"), 99))
    with pytest.raises(StorageError) as caught:
        objects.write("a", b"y")
    assert str(caught.value).startswith(
        f"storage '{objects.uri}': cannot write 'a': Could not connect; check its address"
    )
    assert 15.0 < sum(pauses) <= 30.0
    assert max(pauses) == module.LONGEST_PAUSE_S


def test_storage_that_never_answered_is_given_up_soon(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    fail(monkeypatch, "cat_file", repeat(ConnectionError("refused"), 99))
    with pytest.raises(StorageError, match="refused"):
        objects.read("a")
    assert sum(pauses) <= 2.0


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("Access Denied"),
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError("The specified bucket does not exist"),
        NotImplementedError("read-only"),
        ValueError("invalid endpoint"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_lasts_is_told_at_once(
    error: Exception, objects: Objects, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    objects.write("b", b"x")
    fail(monkeypatch, "pipe_file", repeat(error, 99))
    for call in (objects.write, objects.create):
        with pytest.raises(StorageError, match=r"cannot (write|create) 'a'"):
            call("a", b"y")
    assert pauses == []


def test_a_lasting_error_among_many_is_told(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.write("a", b"x")
    fail(monkeypatch, "cat_file", repeat(PermissionError("Forbidden"), 99))
    with pytest.raises(StorageError, match=r"cannot read 'a' and 1 others.*give this user access"):
        objects.read_many(["a", "b"])


def test_flat_storage_gets_no_folders(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """s3fs would make the bucket, if a slip has named one that is not there."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a folder was made")

    monkeypatch.setattr(Memory, "makedirs", refuse)
    monkeypatch.setattr(Memory, "mkdir", refuse)
    objects.write("a/b", b"x")
    assert objects.create("a/c", b"x")


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("s3://key:secret@bucket/a", "no user and no password"),
        ("s3://", "must be a URI such as"),
        ("s3://bucket/a?b=c", "must be a URI such as"),
        ("nosuch://bucket", "install its file system"),
    ],
)
def test_bad_addresses(uri: str, rule: str) -> None:
    with pytest.raises(StorageError, match=rule) as caught:
        open_objects(uri)
    assert "secret" not in str(caught.value)
