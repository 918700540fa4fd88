"""`distprune results`: the leaderboard of a study that has ended."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from distprune.cli.options import JsonOption
from distprune.cli.tables import show_leaderboard, show_mixing_paths
from distprune.errors import ConfigError
from distprune.library.leaderboard import read_leaderboard
from distprune.library.mixing_paths import read_paths
from distprune.library.study_folder import StudyFolder

EXAMPLES = (
    "distprune results studies/quickstart",
    "distprune results studies/quickstart --json",
)
"""Calls that `--help` shows."""


def results(
    study: Path = typer.Argument(help="Folder of the study.", show_default=False),
    as_json: bool = JsonOption,
) -> None:
    """Print the best mask at every sparsity."""
    folder = find_study(study)
    leaderboard = read_leaderboard(folder)
    if as_json:
        typer.echo(leaderboard.to_json())
    else:
        console = Console()
        show_leaderboard(console, leaderboard)
        show_mixing_paths(console, read_paths(folder))


def find_study(path: Path) -> StudyFolder:
    """Return the folder of a study.

    Raises:
        ConfigError: There is no study at `path`.
    """
    root = path.expanduser().resolve()
    folder = StudyFolder(root.parent, root.name)
    if not folder.configuration.is_file():
        raise ConfigError(
            f"study: {str(path)!r} holds no study; name a folder that `distprune search` made, "
            "for instance studies/quickstart"
        )
    return folder
