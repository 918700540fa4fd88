import hashlib
from pathlib import Path

import pytest

from distprune.store.content import (
    DamagedEntryError,
    FileRecord,
    check_file,
    check_file_name,
    record_files,
)


@pytest.mark.parametrize(
    "name", ["a.json", "train/data.arrow", "a/b/c", "..a", "train/manifest.json"]
)
def test_names_inside_an_entry_are_accepted(name: str) -> None:
    check_file_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/etc/x", "../x", "a/../../x", "a//b", "./a", "a/", "a\0b", "manifest.json"],
)
def test_names_that_lead_out_or_hide_the_manifest_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        check_file_name(name)


def test_files_are_recorded_with_size_and_digest(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "b" / "c.bin").write_bytes(b"12345")
    (tmp_path / "zero").touch()
    assert record_files(tmp_path) == {
        "a/b/c.bin": FileRecord(5, hashlib.sha256(b"12345").hexdigest()),
        "zero": FileRecord(0, hashlib.sha256(b"").hexdigest()),
    }


def test_private_files_become_as_readable_as_their_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "weights").touch(mode=0o600)
    record_files(tmp_path)
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o644


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(ValueError, match="'link' of an entry is not a plain file"):
        record_files(tmp_path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"1234", "4 bytes instead of 5"), (b"12346", "has SHA-256"), (None, "missing")],
)
def test_a_file_that_changed_is_damaged(tmp_path: Path, data: bytes | None, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    record = record_files(tmp_path)["file"]
    check_file(path, "file", record)
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DamagedEntryError, match=reason):
        check_file(path, "file", record)
