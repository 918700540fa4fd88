"""A Ray cluster of one host with a job server and a token of its own, in processes of its own."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cli.sessions import (
    MARK,
    find_marked,
    kill_quietly,
    wait_until,
)

START_LIMIT_S = 240.0


@dataclass(frozen=True)
class JobCluster:
    """A cluster that takes jobs.

    Attributes:
        address: Where its job server listens.
        token: Its token.
    """

    address: str
    token: str

    def make_environment(self, token: str | None) -> dict[str, str]:
        """Return the environment of a laptop that has this token, or none."""
        hidden = ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_ADDRESS", "PYTEST_CURRENT_TEST")
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        if token is None:
            return kept | {"RAY_AUTH_MODE": "disabled"}
        return kept | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}

    def start(self, *arguments: object, token: str | None = None) -> subprocess.Popen[str]:
        """Start a program of this environment, with the token of the cluster or another."""
        program, *rest = map(str, arguments)
        return subprocess.Popen(
            [str(Path(sys.executable).with_name(program)), *rest],
            env=self.make_environment(self.token if token is None else token),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def start_job_cluster() -> Iterator[JobCluster]:
    """Start a cluster with one core; nothing of it is left after the block."""
    mark, token, port = uuid.uuid4().hex, secrets.token_hex(16), find_port()
    cluster = JobCluster(f"http://127.0.0.1:{port}", token)
    folder = Path(sys.executable).parent
    environment = cluster.make_environment(token) | {
        MARK: mark,
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # As after `source .venv/bin/activate`: jobs run this environment's python.
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
    }
    with TemporaryDirectory(prefix="dp-") as place, Path(place, "out").open("w") as out:
        command = [str(folder / "ray"), "start", "--head", "--block", "--num-cpus=1", "--port=0"]
        command += [f"--dashboard-port={port}", "--dashboard-host=127.0.0.1"]
        command += [f"--temp-dir={place}/ray", "--object-store-memory=100000000"]
        # By default two clusters on one host would take the same ports.
        command += [f"--dashboard-agent-listen-port={find_port()}"]
        command += [f"--ray-client-server-port={find_port()}"]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        try:
            is_up = wait_until(lambda: listens(port) or process.poll() is not None, START_LIMIT_S)
            assert is_up, Path(place, "out").read_text()
            assert process.poll() is None, Path(place, "out").read_text()
            yield cluster
        finally:
            for _ in range(3):
                for pid in find_marked(mark):
                    kill_quietly(pid)
            process.wait()


def find_port() -> int:
    """Return a port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Say whether something listens at a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
