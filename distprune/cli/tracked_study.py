"""Where a study is tracked, and what tells it from others of its name."""

from __future__ import annotations

import json

import yaml

from distprune.errors import StorageError
from distprune.library.study_folder import StudyFolder


def read_server(folder: StudyFolder) -> str | None:
    """Return the tracking server that a study names; None = a database beside it."""
    server = yaml.safe_load(folder.configuration.read_text())["tracking"]["uri"]
    return str(server) if server else None


def locate_tracking(folder: StudyFolder, server: str | None) -> tuple[str, str | None]:
    """Return MLflow's tracking URI and artifact location for a study with this server or none."""
    if server:
        return server, None
    return f"sqlite:///{folder.tracking_database}", str(folder.tracking_artifacts)


def read_identifier(folder: StudyFolder) -> str:
    """Return what tells a study from others of its name.

    Raises:
        StorageError: The study's environment.json cannot be read.
    """
    try:
        return str(json.loads(folder.environment.read_text())["study_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"study {folder.root}: {folder.environment.name} cannot be read ({error}); run "
            "`distprune search` again"
        ) from error
