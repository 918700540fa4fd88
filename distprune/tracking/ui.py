"""MLflow's own web pages over the database of a study, served on the loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from distprune.core.credentials import hide_credentials
from distprune.errors import ConfigError, StorageError
from distprune.tracking.client import ENVIRONMENT, SQLITE

STOP_TIMEOUT_S = 10.0
"""Seconds that the server has to end before it is killed."""


def serve(uri: str, artifacts: str | Path, host: str = "127.0.0.1", port: int = 5000) -> int:
    """Serve MLflow's pages until they are interrupted; for the main thread.

    Args:
        uri: `sqlite:///` and the absolute path of a study's tracking database.
        artifacts: Folder or URI of the artifacts of new experiments.
        host: Address to listen on.
        port: Port to listen on.

    Returns:
        Exit status of the server; 0 after an interrupt.

    Raises:
        ConfigError: The port is taken, or the store is a tracking server with pages of its own.
        StorageError: The database does not exist.
    """
    check_store(uri)
    check_port(host, port)
    # Whoever ends this process ends the server too.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = subprocess.Popen(
        build_command(uri, str(artifacts), host, port),
        env={**ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ},
        start_new_session=True,  # the server has processes of its own, which must end with it
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        stop(process)
        signal.signal(signal.SIGTERM, previous)


def build_command(uri: str, artifacts: str, host: str, port: int) -> list[str]:
    """Return the command line of the server: one quiet worker, no upload of artifacts."""
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", uri),
        *("--default-artifact-root", artifacts, "--no-serve-artifacts"),
        *("--host", host, "--port", str(port)),
        *("--workers", "1", "--uvicorn-opts", "--log-level warning"),
    ]


def check_store(uri: str) -> None:
    """Check that `uri` is a database that exists.

    Raises:
        ConfigError: It is something else.
        StorageError: It does not exist.
    """
    if not uri.startswith(SQLITE):
        raise ConfigError(
            f"tracking store {hide_credentials(uri)}: only {SQLITE} databases are served; open "
            "the address of the tracking server in a browser"
        )
    path = Path(uri.removeprefix(SQLITE))
    if not path.is_file():
        raise StorageError(
            f"tracking database {path}: does not exist; run `distprune search` first, or name "
            "the storage that the study is in"
        )


def check_port(host: str, port: int) -> None:
    """Check that `port` is free.

    Raises:
        ConfigError: It is taken, not allowed or out of range, or the host is not this machine.
    """
    if not 1 <= port <= 65535:
        raise ConfigError(f"port {port}: must be from 1 to 65535; choose another with --port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"port {port} on {host}: cannot be listened on ({error.strerror}); choose another "
            "with --port"
        ) from error


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and what it has started, and wait for it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
