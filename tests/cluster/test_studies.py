"""A study on three hosts: undisturbed, and through what happens to hosts, network and driver.

Proposals do not depend on results here and no trial is stopped, so that the order in which trials
end decides nothing, and equal means equal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.testbed import Testbed
from tests.cluster.studies import NUM_TRIALS, ClusterStudy, Results
from tests.tiny_study import save_checkpoint, write_task

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(900),
]

CUT_S = 20.0

MakeStudy = Callable[[str, str], ClusterStudy]


@pytest.fixture(scope="module")
def make_study(testbed: Testbed) -> MakeStudy:
    """Write a study of a name, kept in a storage."""
    inputs = testbed.shared / "inputs"
    save_checkpoint(inputs / "checkpoint")
    write_task(inputs / "words.csv")

    def make(name: str, storage: str) -> ClusterStudy:
        study = ClusterStudy(testbed, testbed.shared / name, storage)
        study.write(inputs)
        return study

    return make


@pytest.fixture(scope="module")
def undisturbed(testbed: Testbed, make_study: MakeStudy) -> Results:
    """The study from beginning to end, on a folder that all hosts share."""
    study = make_study("undisturbed", str(testbed.shared / "undisturbed" / "studies"))
    study.finish(study.start("h1"))
    return study.read_results()


@pytest.fixture
def whole_again(testbed: Testbed) -> Iterator[None]:
    """Give the next test a cluster of three hosts, whatever this one has left of it."""
    yield
    testbed.heal("h2")
    testbed.restart("h3")
    assert testbed.alive_hosts(3, limit_s=60.0) == ["h1", "h2", "h3"]


def test_study_uses_all_hosts(testbed: Testbed, undisturbed: Results) -> None:
    assert undisturbed.leaderboard["outcomes"] == {"completed": NUM_TRIALS}
    assert sorted(undisturbed.masks) == ["0.2", "0.4", "0.6"]
    for host in testbed.hosts:
        assert any(host in of_trial for of_trial in undisturbed.hosts.values()), host


def test_runs_are_tracked_under_their_study(undisturbed: Results) -> None:
    names = [run["name"] for run in undisturbed.runs]
    assert names == ["study", *(f"trial {number}" for number in range(NUM_TRIALS))]
    assert {run["parent"] for run in undisturbed.runs if run["name"] != "study"} == {"study"}
    assert {run["status"] for run in undisturbed.runs} == {"FINISHED"}


@pytest.mark.usefixtures("whole_again")
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_disturbed_study_ends_as_if_nothing_had_happened(
    testbed: Testbed, make_study: MakeStudy, undisturbed: Results, kind: str
) -> None:
    """A host is cut off, the driver is killed and goes on elsewhere, and a host loses its power."""
    storages = {"folder": str(testbed.shared / "disturbed"), "s3": f"{testbed.bucket}/disturbed"}
    study = make_study(f"study-{kind}", storages[kind])
    driver = study.start("h2")
    study.wait_for(lambda: study.count_reports() >= 1)
    with testbed.cut_off("h3"):
        time.sleep(CUT_S)
    before = study.count_reports()
    study.wait_for(lambda: study.count_reports() > before)
    driver.kill()
    second = study.start("h1")
    study.wait_for(lambda: study.count_reports() >= 1)
    testbed.kill("h3")
    study.finish(second)
    results = study.read_results()
    assert results.leaderboard == undisturbed.leaderboard
    assert results.masks == undisturbed.masks
    assert results.runs == undisturbed.runs


def test_no_unfinished_file_is_left(testbed: Testbed, undisturbed: Results) -> None:
    del undisturbed
    found = [path for path in testbed.shared.rglob("*") if is_unfinished(path)]
    assert found == []


def is_unfinished(path: Path) -> bool:
    """Say whether a file was meant to be renamed or removed."""
    return path.is_file() and path.name.endswith((".tmp", ".part"))
