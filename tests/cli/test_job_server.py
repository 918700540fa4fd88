"""A study handed in over HTTP to a real job server: token, log, Ctrl-C, the same command again."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distprune.library.study_folder import StudyFolder
from tests.cli.ended_study import describe_trials
from tests.cli.job_server import JobCluster, start_job_cluster
from tests.cli.sessions import Ended

LIMIT_S = 200

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("job server")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[JobCluster]:
    with start_job_cluster() as cluster:
        yield cluster


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read a process's lines up to the one that has these words."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if words in line:
            return read
    assert process.stderr is not None
    raise AssertionError(read + process.stderr.read())


@pytest.mark.parametrize(("token", "words"), [("0" * 32, "refuses this token"), ("", "token")])
def test_token_is_wanted(
    cluster: JobCluster, make_search: Callable[[str], Path], token: str, words: str
) -> None:
    study = make_search("refused")
    process = cluster.start("distprune", "search", study, "--address", cluster.address, token=token)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2, out + err
    assert err.startswith("error: token: the cluster at http://127.0.0.1:")
    assert words in err
    assert len(err.splitlines()) == 1
    assert not StudyFolder(study.parent / "studies", "tiny").root.exists()


def test_study_is_left_running_found_again_and_ends_as_any_other(
    cluster: JobCluster, make_search: Callable[[str], Path], undisturbed: Ended
) -> None:
    study = make_search("job")
    search = ("distprune", "search", study, "--address", cluster.address)
    first = cluster.start(*search, "--ship-code")
    begun = read_until(first, "Dense model")
    (job,) = re.findall(r"^Job (\S+) runs on", begun, re.M)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=LIMIT_S)
    assert first.returncode == 130
    assert f"left running. Job {job} runs" in err

    second = cluster.start(*search)
    out, err = second.communicate(timeout=LIMIT_S)
    assert second.returncode == 0, out + err
    assert "The study runs already" in out
    assert f"Job {job} runs" in out
    assert begun[begun.index("Dense model") :] in out
    assert "4 of 4 trials done" in out
    folder = StudyFolder(study.parent / "studies", "tiny")
    assert describe_trials(folder) == describe_trials(undisturbed.folder)


def test_study_is_stopped_and_goes_on(
    cluster: JobCluster, make_search: Callable[[str], Path]
) -> None:
    study = make_search("stopped")
    search = ("distprune", "search", study, "--address", cluster.address)
    first = cluster.start(*search)
    begun = read_until(first, "Dense model")
    stop = re.findall(r"^Stop it +(ray .*)$", begun, re.M)[0].split()
    stopping = cluster.start(*stop)
    out, err = stopping.communicate(timeout=LIMIT_S)
    assert stopping.returncode == 0, out + err
    out, err = first.communicate(timeout=LIMIT_S)
    assert first.returncode == 130, out + err
    assert "nothing that was finished is lost" in out  # what the driver says when interrupted
    assert err.startswith("error: the job was stopped; the same command goes on")

    second = cluster.start(*search)
    out, err = second.communicate(timeout=LIMIT_S)
    assert second.returncode == 0, out + err
    assert "4 of 4 trials done" in out
