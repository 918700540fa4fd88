"""A tracking server is asked as a study asks it; what keeps it away is told in one line."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from distprune.tracking.reachable import find_obstacle

pytestmark = [
    pytest.mark.xdist_group("mlflow"),
    pytest.mark.filterwarnings("ignore"),
]


class Answering(BaseHTTPRequestHandler):
    """Answers everything with the status of its server."""

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        body = b"{}" if self.status == 200 else b"no"
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @property
    def status(self) -> int:
        return int(self.server.status)  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: HTTPServer, status: int) -> str | None:
    server.status = status  # type: ignore[attr-defined]
    return find_obstacle(f"http://127.0.0.1:{server.server_port}")


def test_server_that_answers(server: HTTPServer) -> None:
    assert ask(server, 200) is None


def test_database_that_answers(uri: str) -> None:
    assert find_obstacle(uri) is None


@pytest.mark.parametrize("status", [401, 403])
def test_server_that_refuses_the_credentials(server: HTTPServer, status: int) -> None:
    assert ask(server, status) == f"refuses the credentials (HTTP {status})"


def test_server_that_is_no_tracking_server(server: HTTPServer) -> None:
    obstacle = ask(server, 404)
    assert obstacle is not None
    assert obstacle.startswith("cannot be used (")
    assert "\n" not in obstacle


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    obstacle = find_obstacle(f"http://me:secret@127.0.0.1:{port}")
    assert obstacle == "does not answer (connection refused)"
