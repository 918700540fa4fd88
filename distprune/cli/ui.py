"""`distprune ui`: MLflow's pages of a study, on this machine only."""

from __future__ import annotations

import typer

from distprune.cli.options import StudyArgument
from distprune.cli.tracked_study import locate_tracking, read_server
from distprune.errors import ConfigError
from distprune.library.study_folder import find_study

EXAMPLES = (
    "distprune ui studies/quickstart",
    "distprune ui studies/quickstart --port 5001",
)
"""Calls that `--help` shows."""


def ui(
    study: str = StudyArgument,
    port: int = typer.Option(5000, "--port", min=1, max=65535, help="Port on 127.0.0.1."),
) -> None:
    """Show a study's trials in MLflow, on loopback, until Ctrl-C."""
    folder = find_study(study)
    remote = read_server(folder)
    if remote:
        raise ConfigError(f"study: its runs are on the tracking server {remote}; open it there")
    from distprune.tracking.pages import find_study_page
    from distprune.tracking.ui import check_store, serve

    uri, _ = locate_tracking(folder, None)
    check_store(uri)
    page = find_study_page(uri, folder.name, f"http://127.0.0.1:{port}")
    typer.echo(f"MLflow shows {folder.name} at {page} (Ctrl-C ends it)")
    code = serve(uri, folder.tracking_artifacts, port=port)
    raise typer.Exit(code)
