"""`distprune search` with less disk than it would take: the same masks, also if it is killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from distprune.cli.searching import limit_store
from distprune.library.study_folder import StudyFolder
from distprune.search.study_file import check_study
from distprune.search.study_state import open_study
from distprune.store.store import Store
from tests.cli.conftest import RunCommand, WriteStudy
from tests.cli.ended_study import describe_trials, read_leaderboard, read_records
from tests.cli.sessions import Ended, finish, start_search
from tests.search.synthetic import make_study, study_values

MAX_GIB = 0.0002
MAX_BYTES = MAX_GIB * 2**30


@dataclass(frozen=True)
class Limited:
    """The tiny search within a limit.

    Attributes:
        ended: How it ended.
        free: How it ended without a limit.
    """

    ended: Ended
    free: Ended

    @property
    def store(self) -> Store:
        """Its store."""
        return Store(str(self.ended.folder.store))


@pytest.fixture(scope="session")
def limited(make_search: Callable[[str], Path], undisturbed: Ended) -> Limited:
    """The tiny search with a limit, everything killed on the way, and started again."""
    study = make_search("limited")
    limit = ("--set", f"store.max_gib={MAX_GIB}")
    with start_search(study, *limit) as session:
        session.wait_for(lambda: len(list_ended(session.study)) == 2)
        session.kill_all()
    with start_search(study, *limit) as session:
        return Limited(finish(session), undisturbed)


def list_ended(folder: StudyFolder) -> list[int]:
    return [number for number, record in read_records(folder).items() if record.end]


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(600)
class TestLimitedSearch:
    """One search, looked at from several sides."""

    def test_it_ends_as_without_a_limit(self, limited: Limited) -> None:
        assert limited.ended.code == 0, limited.ended.err
        assert limited.ended.err == ""
        assert "warning" not in limited.ended.out
        folder, free = limited.ended.folder, limited.free.folder
        assert read_leaderboard(folder)["rows"] == read_leaderboard(free)["rows"]
        assert describe_trials(folder) == describe_trials(free)

    def test_the_store_is_within_its_limit(self, limited: Limited) -> None:
        free = Store(str(limited.free.folder.store)).count_bytes()
        assert limited.store.count_bytes() <= MAX_BYTES < free
        assert limited.store.list_leftovers() == []

    def test_it_says_what_went(self, limited: Limited) -> None:
        (line,) = [line for line in limited.ended.out.splitlines() if line.startswith("Disk ")]
        assert "weights were removed" in line

    def test_the_weights_of_the_best_masks_are_there(self, limited: Limited) -> None:
        trials = read_records(limited.ended.folder)
        for row in read_leaderboard(limited.ended.folder)["rows"]:
            (level,) = [x for x in trials[row["trial"]].levels if x.level == row["level"]]
            assert limited.store.verify(level.lineage.weights) is None
            assert limited.store.has(level.lineage.weights)

    def test_gc_goes_on_from_there(self, limited: Limited, run_command: RunCommand) -> None:
        storage = limited.ended.folder.storage
        assert run_command("store", "verify", storage).code == 0
        finished = run_command("store", "gc", storage, "--max-gib", 0, "--dry-run")
        assert "pinned: mask library of tiny" in finished.out
        assert "in use by a running study" not in finished.out


def test_without_a_setting_there_is_no_limit(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "synthetic")
    assert limit_store(make_study(), folder, Console()) is None
    assert limit_store(make_study(store={"max_gib": 0.5}), folder, Console()) is not None


def test_the_limit_can_change_between_sessions(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "synthetic")
    identifier = open_study(make_study(), folder, fresh=False)
    folder.history.touch()
    other = check_study(study_values(store={"max_gib": 3}))
    assert open_study(other, folder, fresh=False) == identifier


@pytest.mark.parametrize("value", [0, -1, ".inf", ".nan", "much"])
def test_what_is_no_limit_is_refused(
    value: object, write_study: WriteStudy, run_command: RunCommand
) -> None:
    finished = run_command("validate", write_study(), "--set", f"store.max_gib={value}")
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert line.startswith("error: store.max_gib: ")
