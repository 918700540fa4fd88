import errno
from pathlib import Path

import pytest

from distprune.errors import StorageError
from distprune.store.failure import advise_remote, storage_failures, writer_failures

ACTION = "commit entry 12ab"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "mount it writable"),
        (errno.EACCES, "give this user access"),
        (errno.EPERM, "give this user access"),
        (errno.ENOTDIR, "remove the file"),
    ],
)
def test_storage_errors_say_where_what_and_what_to_do(number: int, advice: str) -> None:
    with pytest.raises(StorageError) as caught, storage_failures("/data", ACTION):
        raise OSError(number, "the reason", "/data/x")
    message = str(caught.value)
    assert message.startswith(
        "storage '/data': cannot commit entry 12ab at '/data/x': the reason; "
    )
    assert advice in message
    assert "\n" not in message


def test_other_errors_pass() -> None:
    with pytest.raises(ConnectionResetError), storage_failures("/data", ACTION):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    with pytest.raises(KeyError), storage_failures("/data", ACTION):
        raise KeyError("x")


def test_errors_of_a_writer_count_inside_its_folder_only(tmp_path: Path) -> None:
    with pytest.raises(StorageError), writer_failures("/data", ACTION, tmp_path):
        raise PermissionError(errno.EACCES, "denied", str(tmp_path / "x"))
    with pytest.raises(PermissionError), writer_failures("/data", ACTION, tmp_path):
        raise PermissionError(errno.EACCES, "denied", "/elsewhere/checkpoint")
    with pytest.raises(FileExistsError), writer_failures("/data", ACTION, tmp_path):
        raise FileExistsError(errno.EEXIST, "exists", str(tmp_path / "x"))


def test_a_full_disk_is_known_from_libraries_with_errors_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="free some space"), writer_failures("/d", "a", tmp_path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(RuntimeError), writer_failures("/d", "a", tmp_path):
        raise RuntimeError("I/O error: (os error 2)")


def test_remote_errors_need_no_number() -> None:
    assert "give this user access" in advise_remote(PermissionError("Access Denied"))
    assert "free some space" in advise_remote(OSError(errno.ENOSPC, "full"))
    assert "check its address" in advise_remote(RuntimeError("Could not connect"))
