"""An address that cannot be joined: which of the many reasons it is, and what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from distprune.errors import ClusterError
from distprune.search.address import check_address, explain_refusal, find_token

ADDRESS = "10.0.0.5:6379"


@pytest.fixture
def port() -> Iterator[int]:
    """A port at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_address_where_somebody_listens_is_taken(port: int) -> None:
    check_address(f"127.0.0.1:{port}")
    check_address("auto")


def test_address_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ClusterError, match=rf"nobody listens at '127\.0\.0\.1:{port}' \(Conn"):
        check_address(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "address", ["local", "host", "host:", ":6379", "host:port", "tcp://h:1", ""]
)
def test_address_of_another_form(address: str) -> None:
    with pytest.raises(ClusterError, match=r"must be auto or HOST:PORT"):
        check_address(address)


def test_ray_client_cannot_be_used() -> None:
    with pytest.raises(ClusterError, match=r"Ray Client.*http://HOST:8265"):
        check_address("ray://10.0.0.5:10001")


class TestToken:
    @pytest.fixture(autouse=True)
    def no_token(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))

    def test_it_comes_from_environment_or_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert find_token() is None
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("a" * 32)
        assert find_token() == str(tmp_path / ".ray" / "auth_token")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
        assert find_token() is None
        monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 32)
        assert find_token() == "RAY_AUTH_TOKEN"

    def test_cluster_that_asks_for_a_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        error = RuntimeError("InvalidAuthToken: Authentication token is missing or incorrect")
        assert "asks for one and this machine has none" in str(explain_refusal(ADDRESS, error))
        monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
        told = str(explain_refusal(ADDRESS, error))
        assert told.startswith(f"token: the cluster at '{ADDRESS}' refuses that of this machine")
        assert "(from RAY_AUTH_TOKEN); print the cluster's with `ray get-auth-token`" in told
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        assert "unset RAY_AUTH_MODE" in str(explain_refusal(ADDRESS, error))

    def test_token_itself_is_never_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", "topsecret")
        error = RuntimeError("InvalidAuthToken: missing or incorrect")
        assert "topsecret" not in str(explain_refusal(ADDRESS, error))

    def test_reason_below_other_errors_is_found(self) -> None:
        error = ConnectionError("Failed to connect to Ray cluster")
        error.__cause__ = RuntimeError("StatusCode.UNAUTHENTICATED InvalidAuthToken")
        assert str(explain_refusal(ADDRESS, error)).startswith("token: ")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError(
                "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n"
                "    Python: 3.12.1\nThis process on node 1.2.3.4 was started with:\n"
                "    Ray: 2.60.0\n    Python: 3.11.9\n"
            ),
            "runs Ray 2.59.0 on Python 3.12.1, this process Ray 2.60.0 on Python 3.11.9",
        ),
        (
            RuntimeError(
                "No node info found matching attributes: '' when trying to resolve node to connect "
                "to."
            ),
            "this machine is no node of the cluster",
        ),
        (
            ConnectionError("Could not find any running Ray instance. Please specify"),
            "finds no cluster that this machine belongs to",
        ),
        (ConnectionError("Failed to connect to Ray cluster"), "does not answer (Failed to"),
    ],
    ids=["version", "no node", "auto", "other"],
)
def test_reason_is_told_in_one_line(error: Exception, words: str) -> None:
    told = str(explain_refusal(ADDRESS, error))
    assert told.startswith("address: ")
    assert words in told
    assert "\n" not in told
    assert "; " in told


def test_ray_that_does_not_start_here() -> None:
    assert "ray: cannot be started" in str(explain_refusal(None, RuntimeError("no memory")))
