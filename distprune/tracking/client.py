"""The MLflow client and its surroundings: environment, noise, errors. MLflow is imported late.

MLflow reports usage to its developers by default. A process that tracks with distprune does not:
`MLFLOW_DISABLE_TELEMETRY` and `DO_NOT_TRACK` are set unless the user has set them.
"""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path
from typing import Any

from distprune.errors import StorageError

SQLITE = "sqlite:///"

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # MLflow prints a link for every run that ends.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The sender retries by itself; MLflow's own retries would hide an outage for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Defaults for this process and those that it starts; what the user has set stays."""

_TEMPORARY_STATUS = frozenset({401, 403, 408, 429})


def prepare_environment() -> None:
    """Set `ENVIRONMENT` where the user has not; call it before MLflow is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def open_client(uri: str) -> Any:
    """Return a client of the tracking store at `uri`, bound to nothing global.

    Args:
        uri: `http(s)://...`, or `sqlite:///` and an absolute path; a database is made if missing.

    Raises:
        StorageError: The database's folder cannot be made.
    """
    from mlflow import MlflowClient

    # The first use of a database runs its migrations and says so line by line. An error comes as
    # an exception, too, and is told in a line; here it would be told with its traceback.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _make_database(path)
        except OSError as error:
            raise StorageError(
                f"tracking database folder {path.parent}: {error.strerror or error}; free space or "
                "name another tracking store"
            ) from error
    return MlflowClient(tracking_uri=uri)


def _make_database(path: Path) -> None:
    """Make an empty database, whole or not at all.

    MLflow makes it by migrations; if a process dies in the middle of them, the next one finds
    tables that exist already, and refuses the database for ever.
    """
    from mlflow import MlflowClient

    for left_over in path.parent.glob(f".{path.name}.*"):
        left_over.unlink()
    # Another name each time: MLflow keeps what it has opened by name.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    MlflowClient(tracking_uri=f"{SQLITE}{aside}").search_experiments(max_results=1)
    aside.rename(path)


def is_outage(error: Exception) -> bool:
    """Say whether the same request may succeed later: no connection, server error, locked, full.

    A server that refuses credentials counts too: they are mended on the server.
    """
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        return status >= 500 or status in _TEMPORARY_STATUS
    if isinstance(error, FileNotFoundError):
        return False
    return isinstance(error, OSError | StorageError)
