"""The address of a cluster, and why it refuses this machine: token, version, nobody there."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from ray.exceptions import RayError

from distprune.errors import ClusterError

CONNECT_TIMEOUT_S = 5.0
"""Longest wait for a connection; Ray itself tries for half a minute."""

TOKEN_ADVICE = (
    "print the cluster's with `ray get-auth-token` on its head node, and set RAY_AUTH_MODE=token "
    "and RAY_AUTH_TOKEN here"
)
JOIN_ADVICE = (
    "run `ray start --address=HOST:6379` on this machine, or hand the study in with "
    "--address http://HOST:8265"
)


def check_address(address: str) -> None:
    """Refuse an address that no cluster can be joined at, and one where nobody listens.

    Args:
        address: `auto`, or `HOST:PORT` of a head node.

    Raises:
        ClusterError: The form is another, or nothing listens there.
    """
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise ClusterError(
            f"address: {address!r} is of Ray Client, which Ray Tune cannot use; write "
            "http://HOST:8265 to hand the study in, or HOST:6379 on a node of the cluster"
        )
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise ClusterError(
            f"address: {address!r} must be auto or HOST:PORT, as in 10.0.0.5:6379; correct it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"address: nobody listens at {address!r} ({reason}); start the cluster there with "
            "`ray start --head`, correct the address, or leave it out"
        ) from error


def use_token() -> None:
    """Show the cluster this machine's token, if it has one; Ray does that for `auto` only."""
    from ray._private.authentication.authentication_token_setup import (
        maybe_enable_token_auth_if_token_available,
    )

    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def uses_token() -> bool:
    """Say whether this process shows a token to the cluster, and asks for it."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())


def check_token(address: str) -> None:
    """Ask the head node once whether it takes this machine's token; Ray itself tries for 20 s.

    Args:
        address: As for `check_address`.

    Raises:
        ClusterError: It does not. What else there may be is left to Ray to find.
    """
    from ray._private.services import canonicalize_bootstrap_address_or_die
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    try:
        GcsClient(address=canonicalize_bootstrap_address_or_die(address))
    except (RayError, OSError, RuntimeError, ValueError) as error:
        if _is_about_token("\n".join(_read_chain(error))):
            raise _explain_token(address) from error


def find_token() -> str | None:
    """Return where this machine's token comes from; None = it has none."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return str(path) if path.is_file() else None


def explain_refusal(address: str | None, error: BaseException) -> ClusterError:
    """Return what Ray raised when it was connected as one line with what to do.

    Args:
        address: As for `connect_cluster`.
        error: What Ray raised.
    """
    if isinstance(error, ClusterError):
        return error
    text = "\n".join(_read_chain(error))
    reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
    if address is None:
        return ClusterError(
            f"ray: cannot be started on this machine ({reason}); free memory, cores and /tmp, or "
            "name a running cluster with --address"
        )
    if _is_about_token(text):
        return _explain_token(address)
    versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", text)
    if "Version mismatch" in text and len(versions) == 2:
        (ray_there, python_there), (ray_here, python_here) = versions
        return ClusterError(
            f"address: the cluster at {address!r} runs Ray {ray_there} on Python {python_there}, "
            f"this process Ray {ray_here} on Python {python_here}; install the same on all nodes "
            "(constraints.txt)"
        )
    if "resolve node to connect to" in text or "possible node ids" in text:
        return ClusterError(
            f"address: this machine is no node of the cluster at {address!r}; {JOIN_ADVICE}"
        )
    if "Could not find any running Ray instance" in text:
        return ClusterError(
            f"address: {address!r} finds no cluster that this machine belongs to; {JOIN_ADVICE}"
        )
    return ClusterError(
        f"address: {address!r} does not answer ({reason}); start a cluster with "
        "`ray start --head`, or leave the address out"
    )


def _explain_token(address: str) -> ClusterError:
    source = find_token()
    if source is None:
        return ClusterError(
            f"token: the cluster at {address!r} asks for one and this machine has none; "
            f"{TOKEN_ADVICE}"
        )
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return ClusterError(
            f"token: the cluster at {address!r} asks for one and RAY_AUTH_MODE is disabled here; "
            "unset RAY_AUTH_MODE"
        )
    return ClusterError(
        f"token: the cluster at {address!r} refuses that of this machine (from {source}); "
        f"{TOKEN_ADVICE}"
    )


def _is_about_token(text: str) -> bool:
    return any(
        words in text
        for words in (
            "InvalidAuthToken",
            "AuthenticationError",
            "authentication token",
            "nauthenticated",
        )
    )


def _read_chain(error: BaseException | None) -> Iterator[str]:
    """Yield the texts of an error and of those that led to it."""
    while error is not None:
        yield f"{type(error).__name__}: {error}"
        error = error.__cause__ or error.__context__
