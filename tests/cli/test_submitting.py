"""`distprune search --address http://...`: handed in once, its log printed, its exit code kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus

from distprune.cli import submitting
from distprune.search.job import JobServer
from tests.cli.conftest import RunCommand, WriteStudy
from tests.search.fake_jobs import FakeClient, make_info

ADDRESS = "http://127.0.0.1:8265"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """What stands for the job server."""
    client = FakeClient([["Reading checkpoint\n", "done\n"]])
    monkeypatch.setattr(submitting, "connect_jobs", lambda address: JobServer(address, client))
    return client


@pytest.fixture
def study(write_study: WriteStudy) -> Path:
    """A study that any machine could run, as far as its file says."""
    return write_study({"trial.checkpoint": "org/bert", "trial.task.dataset": "/shared/words.csv"})


def running_job(tmp_path: Path) -> Any:
    storage = str(tmp_path / "studies")
    metadata = {"distprune_study": "tiny", "distprune_storage": storage}
    return make_info(JobStatus.RUNNING, metadata=metadata)


def test_log_is_printed_and_options_are_repeated(
    client: FakeClient, study: Path, run_command: RunCommand
) -> None:
    options = ["--num-trials", "3", "--set", "seed=5", "--confirm", "2", "--fresh", "--verbose"]
    finished = run_command("search", study, "--address", ADDRESS, *options)
    assert finished.code == 0, finished.err
    assert finished.out.endswith("Reading checkpoint\ndone\n")
    (request,) = client.submitted
    assert f"Job {request['submission_id']} runs on {ADDRESS}" in finished.out
    assert f"ray job stop --address {ADDRESS} {request['submission_id']}" in finished.out
    assert "--fresh" not in finished.out
    words = request["entrypoint"].split()
    assert words[5:7] == ["--address", "auto"]
    assert sorted(words[7:]) == sorted(options)


def test_exit_code_is_that_of_the_job(
    client: FakeClient, study: Path, run_command: RunCommand
) -> None:
    client.infos = [make_info(JobStatus.FAILED, code=2)]
    finished = run_command("search", study, "--address", ADDRESS)
    assert finished.code == 2
    assert finished.err == ""
    client.infos = [make_info(JobStatus.STOPPED)]
    finished = run_command("search", study, "--address", ADDRESS)
    assert finished.code == 130
    assert finished.err.startswith("error: the job was stopped")


def test_running_study_is_followed_not_handed_in_again(
    client: FakeClient, study: Path, run_command: RunCommand, tmp_path: Path
) -> None:
    client.jobs = [running_job(tmp_path)]
    finished = run_command("search", study, "--address", ADDRESS)
    assert finished.code == 0, finished.err
    assert client.submitted == []
    assert "runs already" in finished.out
    assert "Job job-1" in finished.out
    assert finished.out.endswith("done\n")


def test_running_study_is_not_set_aside(
    client: FakeClient, study: Path, run_command: RunCommand, tmp_path: Path
) -> None:
    client.jobs = [running_job(tmp_path)]
    finished = run_command("search", study, "--address", ADDRESS, "--fresh")
    assert finished.code == 2
    assert "error: --fresh: job job-1 works on study 'tiny'" in finished.err
    assert client.submitted == []


def test_interrupt_leaves_the_job_running(
    client: FakeClient, study: Path, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Left(Exception):
        """Stands for the end of the process."""

    def leave(code: int) -> None:
        raise Left(code)

    def interrupt(self: JobServer, name: str, write: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(submitting, "leave", leave)
    monkeypatch.setattr(JobServer, "follow", interrupt)
    with pytest.raises(Left, match="130"):
        run_command("search", study, "--address", ADDRESS)
    assert len(client.submitted) == 1


def test_what_a_job_cannot_have_is_refused_before_the_cluster_is_asked(
    write_study: WriteStudy, run_command: RunCommand, tmp_path: Path
) -> None:
    study = write_study({"storage": "studies"})
    finished = run_command("search", study, "--address", "http://127.0.0.1:1")
    assert finished.code == 2
    assert finished.err.startswith("error: storage: 'studies'")
    assert not (tmp_path / "studies").exists()


def test_json_is_refused(client: FakeClient, study: Path, run_command: RunCommand) -> None:
    finished = run_command("search", study, "--address", ADDRESS, "--json")
    assert finished.code == 2
    assert finished.err.startswith("error: --json:")
    assert client.submitted == []
