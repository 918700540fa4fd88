"""MLflow's pages over a study's database: what is refused, and a real server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from distprune.errors import ConfigError, StorageError
from distprune.tracking import ui

pytestmark = pytest.mark.xdist_group("mlflow")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_database_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist; run `distprune search` first"):
        ui.serve(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tracking_server_has_pages_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"http://\*\*\*@host: only sqlite"):
        ui.serve("http://me:secret@host", tmp_path)


def test_port_that_is_taken(uri: str, tmp_path: Path, free_port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        with pytest.raises(ConfigError, match=rf"port {free_port} .*choose another"):
            ui.serve(uri, tmp_path, port=free_port)


@pytest.mark.parametrize("port", [-1, 0, 70000])
def test_port_out_of_range(uri: str, tmp_path: Path, port: int) -> None:
    with pytest.raises(ConfigError, match=f"port {port}: must be from 1 to 65535"):
        ui.serve(uri, tmp_path, port=port)


def test_command_listens_where_it_is_told() -> None:
    command = ui.build_command("sqlite:////a/mlflow.db", "/a/artifacts", "127.0.0.1", 5001)
    text = " ".join(command)
    assert text.startswith(f"{sys.executable} -m mlflow server")
    assert "--backend-store-uri sqlite:////a/mlflow.db" in text
    assert "--host 127.0.0.1 --port 5001" in text


@pytest.mark.slow
def test_pages_are_served_until_the_process_is_ended(
    uri: str, tmp_path: Path, free_port: int
) -> None:
    program = (
        "import sys; from distprune.tracking.ui import serve; "
        "sys.exit(serve(sys.argv[1], sys.argv[2], port=int(sys.argv[3])))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, uri, str(tmp_path), str(free_port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        page = wait_for(f"http://127.0.0.1:{free_port}/")
        assert "<title>MLflow</title>" in page
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    assert status == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", free_port)) != 0


def wait_for(address: str) -> str:
    """Return a page as soon as it is served."""
    end = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
