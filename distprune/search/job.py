"""A study as a Ray job: sent over HTTP from a machine that is not part of the cluster.

What travels is the study file, its latency table and, if asked for, distprune's own code; no
secrets: tokens and keys come from the environment of the cluster's nodes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shlex
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from distprune.core.credentials import has_credentials, hide_credentials
from distprune.core.latency_table import FILE as TABLE_FILE
from distprune.core.latency_table import locate_table
from distprune.errors import ClusterError, StudyFailedError
from distprune.search.address import TOKEN_ADVICE, use_token
from distprune.search.cluster import PACKAGE
from distprune.search.problems import Problems
from distprune.search.spec import LatencyLimit
from distprune.search.study_file import Study
from distprune.tasks.spec import LOCAL_SUFFIXES

STUDY_FILE = "study.yaml"
"""Name of the study file in the job's working folder."""

JOB_ENVIRONMENT = {
    # `ray job stop` ends the study as Ctrl-C does; Ray's default kills it after three seconds.
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "60",
}

CONNECT_TIMEOUT_S = 10.0
POLL_S = 2.0
QUIET_S = 120.0
"""A log that says nothing for so long is asked for anew: the connection may be dead."""

LOST_S = 300.0
"""Seconds without any answer after which the cluster is given up."""

EXIT_STOPPED = 130

OUTAGES = (OSError, RuntimeError, ValueError, KeyError, TypeError, aiohttp.ClientError)
"""What Ray's client raises where the server is away, or something else answers."""


@dataclass(frozen=True)
class StudyJob:
    """A study to run on a cluster.

    Attributes:
        study: The checked study.
        file: Its file, as the user wrote it.
        arguments: Options of `distprune search` that the job repeats.
        ships_code: Send this installation's distprune along.
    """

    study: Study
    file: Path
    arguments: tuple[str, ...] = ()
    ships_code: bool = False

    @property
    def metadata(self) -> dict[str, str]:
        """What tells the jobs of one study from those of others."""
        spec = self.study.spec
        return {"distprune_study": spec.name, "distprune_storage": spec.storage}

    @property
    def entrypoint(self) -> str:
        """The shell command that the cluster's head node runs."""
        words = ["python", "-m", "distprune", "search", STUDY_FILE, "--address", "auto"]
        table = ("--set", f"objective.table={TABLE_FILE}") if self.find_table() else ()
        return shlex.join([*words, *self.arguments, *table])

    def describe_environment(self, folder: Path) -> dict[str, Any]:
        """Fill the job's working folder, and return its runtime environment."""
        shutil.copyfile(self.file, folder / STUDY_FILE)
        if table := self.find_table():
            shutil.copyfile(table, folder / TABLE_FILE)
        environment: dict[str, Any] = {
            "working_dir": str(folder),
            "env_vars": dict(JOB_ENVIRONMENT),
        }
        if self.ships_code:
            environment["py_modules"] = [str(PACKAGE)]
            environment["excludes"] = ["__pycache__"]
        return environment

    def find_table(self) -> Path | None:
        """Return the study's latency table, where it is on this machine."""
        objective = self.study.spec.objective
        if not isinstance(objective, LatencyLimit):
            return None
        path = locate_table(Path(objective.table).expanduser())
        return path if path.is_file() else None


def check_portable(job: StudyJob) -> None:
    """Refuse a study that names what only this machine has.

    Raises:
        ConfigError: Every such setting, one line each.
    """
    spec, base, problems = job.study.spec, job.study.base, Problems()
    if "://" not in spec.storage and not Path(spec.storage).is_absolute():
        problems.add(
            f"storage: {spec.storage!r} is below a folder of this machine; a job runs on the "
            "cluster; give s3://BUCKET/PREFIX, or the absolute path of a folder that all nodes "
            "share"
        )
    for name, value in (
        ("trial.checkpoint", base.checkpoint),
        ("trial.task.dataset", base.task.dataset),
    ):
        if is_of_this_machine(value):
            problems.add(
                f"{name}: {value!r} is a path of this machine, which a job does not take along; "
                "give a hub id, or an absolute path that all nodes of the cluster have"
            )
    objective = spec.objective
    if isinstance(objective, LatencyLimit):
        is_there = Path(objective.table).is_absolute() or job.find_table() is not None
        if not is_there:
            problems.add(f"objective.table: {objective.table!r} does not exist; correct the path")
    if problems.lines:
        raise problems.error()


def is_of_this_machine(name: str) -> bool:
    """Say whether a name is that of a file below this machine's working or home folder."""
    if name.startswith("demo:") or "://" in name or Path(name).is_absolute():
        return False
    looks_local = name.startswith((".", "~")) or name.lower().endswith(LOCAL_SUFFIXES)
    return looks_local or name.count("/") > 1 or Path(name).exists()


@dataclass(frozen=True)
class JobEnd:
    """How a job ended.

    Attributes:
        code: Exit code of `distprune search` there; 130 = stopped, 1 = it has none.
        message: What is to be said beyond the log; "" where the log says it.
    """

    code: int
    message: str = ""


@dataclass(frozen=True)
class JobServer:
    """The job server of a cluster, which listens where its dashboard does.

    Attributes:
        address: `http://HOST:8265`.
        client: Ray's client of it.
    """

    address: str
    client: Any

    def find_running(self, job: StudyJob) -> str | None:
        """Return the job that works on this study already, if there is one."""
        with explain_failures(self.address):
            for info in self.client.list_jobs():
                ours = (info.metadata or {}).items() >= job.metadata.items()
                if ours and info.submission_id and not info.status.is_terminal():
                    return str(info.submission_id)
        return None

    def submit(self, job: StudyJob) -> str:
        """Send a study that `check_portable` found no fault with; return the name of its job.

        Raises:
            ClusterError: The server refuses it.
        """
        name = f"distprune-{job.study.spec.name}-{secrets.token_hex(4)}"
        with tempfile.TemporaryDirectory(prefix="distprune-job-") as folder:
            environment = job.describe_environment(Path(folder))
            with explain_failures(self.address):
                submitted = self.client.submit_job(
                    entrypoint=job.entrypoint,
                    submission_id=name,
                    runtime_env=environment,
                    metadata=job.metadata,
                )
        return str(submitted)

    def follow(self, name: str, write: Callable[[str], None]) -> JobEnd:
        """Write a job's log as it grows, until the job has ended.

        Connections that break are made again; no character is written twice.

        Raises:
            StudyFailedError: The cluster has not answered for a long while.
        """
        log = JobLog(self.client, name, write)
        lost_since = None
        while True:
            try:
                asyncio.run(log.read())
                info = self.client.get_job_info(name)
            except (*OUTAGES, AuthenticationError) as error:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > LOST_S:
                    raise StudyFailedError(self._describe_loss(name, error)) from error
            else:
                lost_since = None
                if info.status.is_terminal():
                    return describe_end(info, log.last)
            time.sleep(POLL_S)

    def _describe_loss(self, name: str, error: Exception) -> str:
        return (
            f"job {name}: {self.address} has not answered for {LOST_S:g} s ({shorten(error)}); the "
            "study is in its storage and the same command goes on with it"
        )


class JobLog:
    """What a job has printed; each character is written once, however often it is read."""

    def __init__(self, client: Any, name: str, write: Callable[[str], None]) -> None:
        self._client = client
        self._name = name
        self._write = write
        self._num_written = 0
        self.last = ""
        """The end of what was written."""

    async def read(self) -> None:
        """Write what is new, until the server has no more or says nothing for a while."""
        lines = aiter(self._client.tail_job_logs(self._name))
        position = 0
        while True:
            try:
                text = await asyncio.wait_for(anext(lines), QUIET_S)
            except (StopAsyncIteration, TimeoutError):
                return
            position += len(text)
            num_new = position - self._num_written
            if num_new > 0:
                self._write(text[-num_new:])
                self._num_written = position
                self.last = (self.last + text[-num_new:])[-2000:]


def describe_end(info: Any, log: str) -> JobEnd:
    """Return how a job ended, given Ray's details of it and the end of its log."""
    if info.status == JobStatus.SUCCEEDED:
        return JobEnd(0)
    if info.status == JobStatus.STOPPED:
        return JobEnd(EXIT_STOPPED, "the job was stopped; the same command goes on with the study")
    code = info.driver_exit_code
    if "No module named distprune" in log:
        return JobEnd(1, "the cluster has no distprune; install it there, or add --ship-code")
    if code == 127:
        return JobEnd(1, "the head node finds no python; start Ray with its environment on PATH")
    if code is not None and 0 < code < 128:
        return JobEnd(code)
    return JobEnd(1, f"the job failed: {shorten(info.message or info.error_type)}")


def connect_jobs(address: str) -> JobServer:
    """Connect to the job server of a cluster.

    Args:
        address: `http://HOST:8265` or `https://...`, where the dashboard is.

    Raises:
        ClusterError: No job server answers there, or it refuses this machine's token.
    """
    if not _is_well_formed(address) or has_credentials(address):
        raise ClusterError(
            f"address: {hide_credentials(address)!r} must be http://HOST:8265, without user and "
            "password; correct it"
        )
    _check_reachable(address)
    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they announce each upload
    use_token()
    with explain_failures(address), _without_other_addresses():
        return JobServer(address, JobSubmissionClient(address))


@contextmanager
def explain_failures(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into one line.

    Raises:
        ClusterError: The server refuses, or no job server is there.
    """
    try:
        yield
    except AuthenticationError as error:
        reason = "asks for a token" if "Missing" in error.message else "refuses this token"
        raise ClusterError(f"token: the cluster at {address} {reason}; {TOKEN_ADVICE}") from error
    except OUTAGES as error:
        raise ClusterError(
            f"address: {address} does not take jobs ({shorten(error)}); name the dashboard of a "
            "head node that has ray[default], for instance http://HOST:8265"
        ) from error


def _is_well_formed(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.hostname and parts.port != 0 and not parts.query + parts.fragment)
    except ValueError:  # brackets that do not close, a port that is no number
        return False


def _check_reachable(address: str) -> None:
    """Find out in a few seconds whether anything answers; Ray's client waits for minutes."""
    try:
        with urllib.request.urlopen(
            f"{address.rstrip('/')}/api/version", timeout=CONNECT_TIMEOUT_S
        ):
            return
    except urllib.error.HTTPError:
        return  # something answers; Ray's client finds out what
    except (OSError, ValueError, HTTPException) as error:
        raise ClusterError(
            f"address: {address} does not answer ({shorten(error)}); correct it, or open a way to "
            "it with `ssh -L 8265:localhost:8265 HOST` or `kubectl port-forward` and use "
            "http://127.0.0.1:8265"
        ) from error


@contextmanager
def _without_other_addresses() -> Iterator[None]:
    """Hide the variables that Ray's client prefers to the address that it is given."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def shorten(text: object) -> str:
    """Return a text on one line, at most 300 characters of it."""
    return " ".join(str(text).split())[:300]
