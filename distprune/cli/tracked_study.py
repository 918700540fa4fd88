"""Where a study is tracked."""

from __future__ import annotations

import yaml

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
