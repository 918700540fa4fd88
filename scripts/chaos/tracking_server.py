"""An MLflow server of our own, on the loopback, that can be killed and comes back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from distprune.tracking.client import ENVIRONMENT

START_LIMIT_S = 90.0


class ServerFailedError(Exception):
    """The server does not answer; the message has the end of what it wrote."""


class TrackingServer:
    """An MLflow server over a SQLite database and a folder of artifacts.

    Args:
        folder: Where it keeps both.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = find_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._back_at: float | None = None

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and do not wait for it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(self._folder / "artifacts")),
            *("--host", "127.0.0.1", "--port", str(self._port)),
        ]
        quiet = {**ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | quiet,
                start_new_session=True,  # the server has processes of its own
            )

    def kill(self, pause_s: float) -> bool:
        """Kill it at once; `keep_up` starts it again after a pause. False: it was dead already."""
        if self._process is None or self._process.poll() is not None:
            return False
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._back_at = time.monotonic() + pause_s
        return True

    def keep_up(self) -> None:
        """Start it again if its pause is over."""
        if self._back_at is not None and time.monotonic() >= self._back_at:
            self._back_at = None
            self.start()

    def wait_until_ready(self) -> None:
        """Start it if it is away, and wait until it answers.

        Raises:
            ServerFailedError: It does not.
        """
        if self._back_at is not None or self._process is None:
            self._back_at = None
            self.start()
        end = time.monotonic() + START_LIMIT_S
        while not self._answers():
            if time.monotonic() > end:
                lines = (self._folder / "server.log").read_text(errors="replace").splitlines()
                raise ServerFailedError("\n".join(["the MLflow server is away:", *lines[-15:]]))
            time.sleep(0.2)

    def stop(self) -> None:
        """End it for good."""
        self._back_at = None
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2.0) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def find_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
