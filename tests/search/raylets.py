"""A Ray cluster of several nodes on this machine, each a process with an environment of its own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.sessions import MARK, kill_quietly, list_processes, read_environment

START_LIMIT_S = 180.0


@dataclass
class Raylets:
    """A cluster with token authentication.

    Attributes:
        address: Of its head node.
        token: What it asks for.
        folder: Short folder for Ray's files (a socket's path is at most 107 bytes long).
        processes: `ray start --block` of each node.
    """

    address: str
    token: str
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of a process that belongs to the cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
            "HOME": str(self.folder),
            MARK: self.token,
        }
        return kept | own | changes

    def start(self, *options: str, wrapper: tuple[str, ...] = (), **changes: str) -> None:
        """Start a node: the head first, then others."""
        ray = str(Path(sys.executable).with_name("ray"))
        place = (
            ["--head", f"--port={self.address.rpartition(':')[2]}", "--node-ip-address=127.0.0.1"]
            if not self.processes
            else [f"--address={self.address}", "--node-ip-address=127.0.0.1"]
        )
        command = [*wrapper, ray, "start", "--block", *place, "--num-cpus=1", *options]
        command += ["--object-store-memory=80000000", "--disable-usage-stats"]
        if not self.processes:
            command += ["--include-dashboard=false", f"--temp-dir={self.folder}"]
        log = self.folder / f"node-{len(self.processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=self.environment(**changes),
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        deadline = time.monotonic() + START_LIMIT_S
        while not re.search(rb"Ray runtime started|--block", log.read_bytes()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.2)

    def stop(self) -> None:
        """End every process of every node."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
        wanted = f"{MARK}={self.token}".encode()
        for pid in list_processes():
            if wanted in read_environment(pid):
                kill_quietly(pid)
        for process in self.processes:
            process.wait()

    def run(self, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a driver of the cluster would be run."""
        return subprocess.run(
            [sys.executable, *command],
            env=self.environment(**changes),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@contextmanager
def raylets() -> Iterator[Raylets]:
    """Start nothing yet; stop in the end what was started."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="dp", dir="/tmp"))
    cluster = Raylets(f"127.0.0.1:{port}", secrets.token_hex(16), folder)
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
