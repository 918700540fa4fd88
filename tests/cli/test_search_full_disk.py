"""A disk that is full in the middle of a study: it says so, and goes on when there is space."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distprune.store.store import Store
from tests.cli.ended_study import MILESTONES, read_leaderboard
from tests.cli.sessions import Ended, finish, start_search

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(600),
]

FULL, ROOMY = "size=1800k", "size=64m"
"""The study takes some 2.8 MiB, most of it for its tracking database."""


def mount(folder: Path, *options: str) -> bool:
    command = ["mount", "-t", "tmpfs", *options, "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def study(make_search: Callable[[str], Path]) -> Iterator[Path]:
    """A study whose storage is a small disk of its own."""
    file = make_search("full-disk")
    disk = file.parent / "studies"
    disk.mkdir()
    if os.geteuid() != 0 or not mount(disk, "-o", FULL):
        pytest.skip("mounting a small disk needs root")
    try:
        yield file
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_study_says_so_and_goes_on_with_more_space(study: Path, undisturbed: Ended) -> None:
    with start_search(study) as session:
        full = finish(session)
    assert full.code != 0, full.out
    assert "No space left on device" in full.err, full.err
    assert "Traceback" not in full.err
    store = Store(str(full.folder.store))
    assert [key for key in list(store.keys()) if store.verify(key)] == []

    assert mount(study.parent / "studies", "-o", f"remount,{ROOMY}")
    with start_search(study) as session:
        ended = finish(session)
    assert ended.code == 0, ended.err
    assert read_leaderboard(ended.folder) == read_leaderboard(undisturbed.folder)
    for milestone in MILESTONES:
        found, wanted = (one.folder.mask(milestone).read_bytes() for one in (ended, undisturbed))
        assert found == wanted
