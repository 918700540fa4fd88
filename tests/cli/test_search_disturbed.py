"""`distprune search` interrupted and killed: started again, it ends as if nothing had happened.

Starting a search takes longest, so one search is disturbed three times: Ctrl-C in its first trial,
the driver killed after that, everything killed after that.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from distprune import Mask
from distprune.errors import StudyExistsError
from distprune.library.study_folder import StudyFolder
from distprune.search.driver_lease import hold_study
from distprune.store.store import Store
from tests.cli.ended_study import (
    MILESTONES,
    count_reports,
    count_runs,
    describe_trials,
    query,
    read_records,
    tracked_values,
)
from tests.cli.sessions import Ended, Session, finish, start_search

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(600),
]


@dataclass(frozen=True)
class Disturbed:
    """What a study went through.

    Attributes:
        interrupted: The session that got Ctrl-C.
        killed: The one whose driver was killed.
        last: The one that nobody disturbed.
        second_driver: What a second driver was told while the second session ran.
        driver_pid: The driver of the second session.
        num_reports: Milestones in the history when each disturbance came.
    """

    interrupted: Ended
    killed: Ended
    last: Ended
    second_driver: str
    driver_pid: int
    num_reports: list[int]

    @property
    def folder(self) -> StudyFolder:
        """The study."""
        return self.last.folder


def wait_for_report(session: Session) -> int:
    """Wait for the next milestone of any trial, and return how many there are."""
    before = count_reports(session.study)
    session.wait_for(lambda: count_reports(session.study) > before)
    return count_reports(session.study)


@pytest.fixture(scope="session")
def disturbed(make_search: Callable[[str], Path]) -> Disturbed:
    """The same search, disturbed three times, each time started again by the same command."""
    study = make_search("disturbed")
    num_reports = []
    with start_search(study) as session:
        num_reports.append(wait_for_report(session))
        session.process.send_signal(signal.SIGINT)
        interrupted = finish(session)
    with start_search(study) as session:
        num_reports.append(wait_for_report(session))
        driver_pid, second_driver = session.process.pid, try_to_drive(session.study)
        session.kill_driver()
        # Nobody waits for what the dead driver has left behind.
        with start_search(study) as next_session:
            num_reports.append(wait_for_report(next_session))
            next_session.kill_all()
        with start_search(study) as last_session:
            last = finish(last_session)
        killed = finish(session)
    return Disturbed(interrupted, killed, last, second_driver, driver_pid, num_reports)


def try_to_drive(folder: StudyFolder) -> str:
    """Try to hold a study that another driver works on, and return what it says."""
    try:
        with hold_study(folder.lease, folder.name):
            return "two drivers hold one study"
    except StudyExistsError as error:
        return str(error)


def test_each_disturbance_came_in_mid_search(disturbed: Disturbed) -> None:
    total = sum(len(record.reports) for record in read_records(disturbed.folder).values())
    assert disturbed.num_reports == sorted(set(disturbed.num_reports))
    assert disturbed.num_reports[-1] < total


def test_interrupt_says_how_to_go_on_and_leaves_nothing_behind(disturbed: Disturbed) -> None:
    ended = disturbed.interrupted
    assert ended.code == 130, ended.err
    assert "nothing that was finished is lost" in ended.err
    assert f"distprune search {disturbed.folder.storage.parent / 'study.yaml'}" in ended.err
    assert "Traceback" not in ended.out + ended.err
    assert ended.orphans == ()


def test_second_driver_is_refused(disturbed: Disturbed) -> None:
    assert disturbed.second_driver.startswith(f"study 'tiny': process {disturbed.driver_pid} on ")


def test_dead_driver_leaves_no_process(disturbed: Disturbed) -> None:
    assert disturbed.killed.orphans == ()
    assert disturbed.killed.code == -signal.SIGKILL


def test_it_ends_well(disturbed: Disturbed) -> None:
    assert disturbed.last.code == 0, disturbed.last.err
    assert "Best masks of tiny" in disturbed.last.out


def test_results_are_those_of_an_undisturbed_search(
    disturbed: Disturbed, undisturbed: Ended
) -> None:
    here, there = disturbed.folder, undisturbed.folder
    assert describe_trials(here) == describe_trials(there)
    for milestone in MILESTONES:
        assert Mask.load(here.mask(milestone)) == Mask.load(there.mask(milestone))
        assert here.mask(milestone).read_bytes() == there.mask(milestone).read_bytes()
    assert here.leaderboard_json.read_bytes() == there.leaderboard_json.read_bytes()
    assert here.leaderboard_csv.read_bytes() == there.leaderboard_csv.read_bytes()


def test_no_stage_more_or_less_is_stored(disturbed: Disturbed, undisturbed: Ended) -> None:
    stores = [Store(str(f.store)) for f in (disturbed.folder, undisturbed.folder)]
    assert [*stores[0].keys()] == [*stores[1].keys()]


def test_every_trial_is_tracked_once(disturbed: Disturbed, undisturbed: Ended) -> None:
    here, there = disturbed.folder, undisturbed.folder
    assert count_runs(here) == {"study": 1} | {f"trial {n}": 1 for n in range(4)}
    assert query(here, "SELECT DISTINCT status FROM runs") == [("FINISHED",)]
    assert tracked_values(here) == tracked_values(there)
