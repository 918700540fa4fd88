import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distprune.errors import StorageError
from distprune.store.store import Store

from .conftest import KEY, RECORD, list_files, refuse_to_write, write_two_files


def fail_with(number: int) -> Callable[..., Any]:
    def fail(*arguments: object, **options: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize(
    "place", ["os.fsync", "pathlib.Path.mkdir", "pathlib.Path.rename", "pathlib.Path.write_text"]
)
def test_a_storage_that_refuses_is_one_clear_line_and_leaves_nothing(
    local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, place: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(place, fail_with(number))
        with pytest.raises(StorageError) as caught:
            local_store.commit(KEY, write_two_files, RECORD)
    message = str(caught.value)
    assert re.match(
        r"storage '.*store.*': cannot .*; .* or choose another storage location", message
    )
    assert os.strerror(number) in message
    assert "\n" not in message
    assert not local_store.has(KEY)
    assert list_files(tmp_path) == []
    assert [path for path in tmp_path.rglob("*") if "~" in path.name] == []


def test_a_file_in_place_of_the_root_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "store"):
        store = Store(str(root))
        assert not store.has(KEY)
        assert store.find(KEY) is None
        for call in (
            store.check_writable,
            lambda store=store: store.commit(KEY, refuse_to_write, RECORD),
            lambda store=store: store.get_or_commit(KEY, refuse_to_write, RECORD),
        ):
            with pytest.raises(StorageError, match="remove the file that stands where a folder"):
                call()


def test_check_writable_leaves_an_empty_root(store: Store, tmp_path: Path) -> None:
    store.check_writable()
    assert list_files(tmp_path) == []
    assert list(store.keys()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_check_writable_refuses_a_root_that_cannot_be_written(
    local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("os.fsync", fail_with(number))
    with pytest.raises(StorageError, match="cannot write a probe file"):
        local_store.check_writable()
    assert list_files(tmp_path) == []


def test_a_read_only_folder_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    store = Store(str(tmp_path / "store"))
    with pytest.raises(StorageError, match="give this user access"):
        store.check_writable()
    with pytest.raises(StorageError, match="give this user access"):
        store.get_or_commit(KEY, refuse_to_write, RECORD)
    assert not store.has(KEY)
