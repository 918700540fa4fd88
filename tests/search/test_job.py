"""A study as a job: what travels, what is refused, and a log that is written once."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from distprune.core.latency_table import write_table
from distprune.errors import ClusterError, ConfigError, StudyFailedError
from distprune.search import job as job_module
from distprune.search.job import (
    JobServer,
    StudyJob,
    check_portable,
    connect_jobs,
    describe_end,
    is_of_this_machine,
)
from distprune.search.spec import LatencyLimit
from distprune.search.study_file import load_study
from tests.core.latencies import make_table
from tests.search.fake_jobs import FakeClient, make_info
from tests.search.synthetic import study_values

ADDRESS = "http://127.0.0.1:8265"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "sesame-1",
    "MLFLOW_TRACKING_PASSWORD": "sesame-2",
    "HF_TOKEN": "sesame-3",
    "RAY_AUTH_TOKEN": "sesame-4",
}


def make_job(folder: Path, *arguments: str, ships_code: bool = False, **changes: Any) -> StudyJob:
    """Write a study that any machine could run, and return its job."""
    values = study_values(**{"storage": "/shared/studies", **changes})
    values["trial"] = {"checkpoint": "org/bert", "task": {"dataset": "glue"}} | {
        name: value
        for name, value in values["trial"].items()
        if "trial" in changes or name == "pruning"
    }
    file = folder / "my study.yaml"
    file.write_text(yaml.safe_dump(values))
    return StudyJob(load_study(file), file, arguments, ships_code)


@pytest.fixture(autouse=True)
def be_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for milliseconds where a user waits for seconds; leave this process without token."""
    monkeypatch.setattr(job_module, "use_token", lambda: None)
    monkeypatch.setattr(job_module, "POLL_S", 0.001)
    monkeypatch.setattr(job_module, "QUIET_S", 0.05)
    monkeypatch.setattr(job_module, "LOST_S", 0.05)


class TestWhatTravels:
    def test_study_file_and_options(self, tmp_path: Path) -> None:
        client = FakeClient()
        job = make_job(tmp_path, "--set", "trial.seed=[1, 2]", "--num-trials", "9")
        name = JobServer(ADDRESS, client).submit(job)
        request = client.submitted[0]
        assert name == request["submission_id"]
        assert name.startswith("distprune-synthetic-")
        assert client.files == {"study.yaml": job.file.read_bytes()}
        assert shlex.split(request["entrypoint"]) == [
            *("python", "-m", "distprune", "search", "study.yaml", "--address", "auto"),
            *("--set", "trial.seed=[1, 2]", "--num-trials", "9"),
        ]
        assert not Path(request["runtime_env"]["working_dir"]).exists()
        assert "py_modules" not in request["runtime_env"]

    def test_shell_sees_no_code_in_an_option(self, tmp_path: Path) -> None:
        job = make_job(tmp_path, "--set", "name=$(touch /tmp/x); `id`")
        assert "'name=$(touch /tmp/x); `id`'" in job.entrypoint

    def test_code_travels_if_asked_for(self, tmp_path: Path) -> None:
        client = FakeClient()
        JobServer(ADDRESS, client).submit(make_job(tmp_path, ships_code=True))
        (module,) = client.submitted[0]["runtime_env"]["py_modules"]
        assert Path(module).name == "distprune"
        assert (Path(module) / "__main__.py").is_file()

    def test_secrets_stay_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)
        client = FakeClient()
        JobServer(ADDRESS, client).submit(make_job(tmp_path, ships_code=True))
        assert "sesame" not in json.dumps(client.submitted)
        assert not any(b"sesame" in data for data in client.files.values())

    def test_latency_table_travels_under_its_new_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write_table(make_table(), Path("fast.json"))
        job = make_job(tmp_path, objective={"latency_ms": 12.0, "table": "fast.json"})
        client = FakeClient()
        check_portable(job)
        JobServer(ADDRESS, client).submit(job)
        assert client.files["latency.json"] == Path("fast.json").read_bytes()
        words = shlex.split(client.submitted[0]["entrypoint"])
        assert words[-2:] == ["--set", "objective.table=latency.json"]
        there = load_study(job.file, {"objective.table": "latency.json"})
        assert isinstance(there.spec.objective, LatencyLimit)
        assert there.spec.objective.table == "latency.json"

    def test_latency_table_that_only_the_cluster_has_is_named_as_it_is(
        self, tmp_path: Path
    ) -> None:
        job = make_job(tmp_path, objective={"latency_ms": 12.0, "table": "/shared/table.json"})
        check_portable(job)
        assert "objective.table" not in job.entrypoint


class TestWhatIsRefused:
    @pytest.mark.parametrize("storage", ["studies", "./studies", "../studies", "~/studies"])
    def test_storage_below_a_folder_of_this_machine(self, tmp_path: Path, storage: str) -> None:
        with pytest.raises(ConfigError, match=r"storage: .* absolute path") as caught:
            check_portable(make_job(tmp_path, storage=storage))
        assert "\n" not in str(caught.value)

    def test_every_setting_at_once(self, tmp_path: Path) -> None:
        trial = study_values()["trial"] | {"checkpoint": "./bert", "task": {"dataset": "a.csv"}}
        limit = {"latency_ms": 12.0, "table": "missing.json"}
        job = make_job(tmp_path, storage="studies", trial=trial, objective=limit)
        with pytest.raises(ConfigError) as caught:
            check_portable(job)
        names = [line.partition(":")[0] for line in str(caught.value).splitlines()]
        assert names == ["storage", "trial.checkpoint", "trial.task.dataset", "objective.table"]

    @pytest.mark.parametrize(
        ("name", "is_local"),
        [
            ("bert-base-uncased", False),
            ("org/bert@main", False),
            ("demo:minilm", False),
            ("/shared/bert", False),
            ("s3://bucket/data.csv", False),
            ("./bert", True),
            ("../bert", True),
            ("~/bert", True),
            ("a/b/c", True),
            ("data.CSV", True),
            ("here", True),
        ],
    )
    def test_path_of_this_machine(
        self, name: str, is_local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path)
        assert is_of_this_machine(name) is is_local


class TestLog:
    def follow(self, client: FakeClient) -> tuple[str, int, str]:
        pieces: list[str] = []
        end = JobServer(ADDRESS, client).follow("job-1", pieces.append)
        return "".join(pieces), end.code, end.message

    def test_is_written_to_its_end(self) -> None:
        assert self.follow(FakeClient([["one\n", "two\n"]])) == ("one\ntwo\n", 0, "")

    def test_is_written_once_however_often_the_connection_breaks(self) -> None:
        readings = [
            ["one\n", RuntimeError("closed")],
            [ConnectionError("refused")],
            ["on", "e\ntw", OSError("reset")],
            ["one\ntwo\n", "three\n"],
        ]
        running = make_info(JobStatus.RUNNING)
        client = FakeClient(readings, [running, make_info(JobStatus.SUCCEEDED)])
        client.readings.append(["one\ntwo\nthree\n", "four\n"])
        assert self.follow(client) == ("one\ntwo\nthree\nfour\n", 0, "")

    def test_silent_connection_is_made_anew(self) -> None:
        readings = [["one\n", 60.0, "never\n"], ["one\n", "two\n"]]
        infos = [make_info(JobStatus.RUNNING), make_info(JobStatus.SUCCEEDED)]
        assert self.follow(FakeClient(readings, infos)) == ("one\ntwo\n", 0, "")

    def test_lost_cluster_is_given_up_with_advice(self) -> None:
        client = FakeClient([[ConnectionError("nobody there")]])
        with pytest.raises(StudyFailedError, match=r"job-1: .*nobody there.*same command"):
            self.follow(client)

    def test_short_outages_far_apart_do_not_add_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(job_module, "LOST_S", 0.3)
        readings: list[Any] = [[ConnectionError("away")], [0.04]] * 8 + [["done"]]
        infos = [make_info(JobStatus.RUNNING)] * 8 + [make_info(JobStatus.SUCCEEDED)]
        assert self.follow(FakeClient(readings, infos)) == ("done", 0, "")


@pytest.mark.parametrize(
    ("info", "log", "code", "words"),
    [
        (make_info(JobStatus.SUCCEEDED, code=0), "", 0, ""),
        (make_info(JobStatus.FAILED, code=2), "error: storage", 2, ""),
        (make_info(JobStatus.FAILED, code=1), "No module named distprune", 1, "--ship-code"),
        (make_info(JobStatus.FAILED, code=127), "sh: python: not found", 1, "no python"),
        (make_info(JobStatus.FAILED, code=-9, message="killed by 9"), "", 1, "killed by 9"),
        (make_info(JobStatus.FAILED, error_type="JOB_SUPERVISOR_ACTOR_DIED"), "", 1, "DIED"),
        (make_info(JobStatus.STOPPED), "", 130, "stopped"),
    ],
)
def test_end_of_a_job(info: Any, log: str, code: int, words: str) -> None:
    end = describe_end(info, log)
    assert end.code == code
    assert words in end.message
    assert bool(words) == bool(end.message)


class TestRunningJob:
    def find(self, tmp_path: Path, **changes: Any) -> str | None:
        job = make_job(tmp_path)
        metadata = job.metadata | changes.pop("metadata", {})
        info = make_info(changes.pop("status", JobStatus.RUNNING), metadata=metadata, **changes)
        others = [make_info(JobStatus.RUNNING, name="other", metadata=None)]
        return JobServer(ADDRESS, FakeClient(jobs=[*others, info])).find_running(job)

    def test_is_found(self, tmp_path: Path) -> None:
        assert self.find(tmp_path) == "job-1"
        assert self.find(tmp_path, status=JobStatus.PENDING) == "job-1"
        assert self.find(tmp_path, metadata={"more": "of it"}) == "job-1"

    def test_of_another_study_is_not(self, tmp_path: Path) -> None:
        assert self.find(tmp_path, metadata={"distprune_study": "other"}) is None
        assert self.find(tmp_path, metadata={"distprune_storage": "/elsewhere"}) is None

    def test_that_has_ended_is_not(self, tmp_path: Path) -> None:
        assert self.find(tmp_path, status=JobStatus.FAILED) is None


@contextmanager
def serve(status: int, body: bytes) -> Iterator[str]:
    """Answer every request alike; yield the address, and keep what was asked in `serve.seen`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    seen: list[dict[str, str]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestConnection:
    @pytest.mark.parametrize(
        "address",
        [
            "http://",
            "http://me:secret@host:8265",
            "http://host:8265/?x=1",
            "http://host:port",
            "http://[::1",
        ],
    )
    def test_address_must_be_one(self, address: str) -> None:
        with pytest.raises(ClusterError, match="must be http://HOST:8265") as caught:
            connect_jobs(address)
        assert "secret" not in str(caught.value)

    def test_nobody_there(self) -> None:
        with serve(200, b"") as address:
            pass
        with pytest.raises(ClusterError, match=r"does not answer .*ssh -L"):
            connect_jobs(address)

    @pytest.mark.parametrize(
        ("status", "body", "words"),
        [
            (401, b"Unauthorized: Missing authentication token", "asks for a token"),
            (403, b"Forbidden: Invalid authentication token", "refuses this token"),
            (404, b"no such page", "does not take jobs"),
            (200, b"<html>a proxy</html>", "does not take jobs"),
            (200, b'{"version": 4}', "does not take jobs"),
            (500, b"broken", "does not take jobs"),
        ],
    )
    def test_what_answers_is_no_job_server_of_ours(
        self, status: int, body: bytes, words: str
    ) -> None:
        with serve(status, body) as address, pytest.raises(ClusterError, match=words) as caught:
            connect_jobs(address)
        assert "\n" not in str(caught.value)

    def test_other_addresses_in_the_environment_are_ignored(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:2")
        body = json.dumps({"version": "4", "ray_version": "2.60.0"}).encode()
        with serve(200, body) as address:
            assert connect_jobs(f"{address}/").client.get_address() == address
        assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"
        assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:2"


def test_error_of_the_server_is_one_line() -> None:
    class Refusing(FakeClient):
        def list_jobs(self) -> list[Any]:
            raise AuthenticationError("Authentication failed: Forbidden\n\nlong")

    with pytest.raises(ClusterError, match="refuses this token") as caught:
        JobServer(ADDRESS, Refusing()).find_running(StudyJob.__new__(StudyJob))
    assert "\n" not in str(caught.value)
