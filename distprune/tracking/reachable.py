"""Can the tracking server be reached from this process, and does it take its credentials?"""

from __future__ import annotations

from distprune.core.credentials import hide_credentials
from distprune.tracking.client import open_client, prepare_environment

REASONS = ("connection refused", "name or service not known", "timed out", "no route to host")
"""What the connection says, below several layers of wrapping."""


def find_obstacle(uri: str) -> str | None:
    """Return what keeps this process from the tracking store at `uri`, in one line; None = nothing.

    The store is asked for an experiment, as a study does when it begins.
    """
    prepare_environment()
    try:
        open_client(uri).search_experiments(max_results=1)
    except Exception as error:  # HTTP, databases and MLflow fail in unrelated classes
        return _describe(error)
    return None


def _describe(error: Exception) -> str:
    """Return the innermost reason: MLflow wraps what the connection raised several times."""
    status = getattr(error, "get_http_status_code", int)()
    if status in (401, 403):
        return f"refuses the credentials (HTTP {status})"
    text = " ".join(hide_credentials(str(error)).split())
    for reason in REASONS:
        if reason in text.lower():
            return f"does not answer ({reason})"
    return f"cannot be used ({type(error).__name__}: {text[:200]})"
