"""`distprune results`: the leaderboard of a study that has ended."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console

from distprune.cli.options import JsonOption
from distprune.cli.tables import show_leaderboard, show_mixing_paths
from distprune.cli.usage import describe_usage
from distprune.errors import ConfigError
from distprune.library.leaderboard import Leaderboard, read_leaderboard
from distprune.library.mixing_paths import read_paths
from distprune.library.study_folder import StudyFolder
from distprune.library.study_usage import measure_usage

EXAMPLES = (
    "distprune results studies/quickstart",
    "distprune results studies/quickstart --json",
)
"""Calls that `--help` shows."""


def results(
    study: Path = typer.Argument(help="Folder of the study.", show_default=False),
    as_json: bool = JsonOption,
) -> None:
    """Print the best mask at every sparsity, and what the study's stages cost."""
    folder = find_study(study)
    leaderboard = read_leaderboard(folder)
    if as_json:
        typer.echo(format_results(folder, leaderboard))
        return
    console = Console()
    show_leaderboard(console, leaderboard)
    show_mixing_paths(console, read_paths(folder))
    typer.echo(f"\n{describe_usage(measure_usage(folder))}")


def format_results(folder: StudyFolder, leaderboard: Leaderboard) -> str:
    """Return a leaderboard and what the study's stages cost, as JSON."""
    stages = asdict(measure_usage(folder))
    return json.dumps({**json.loads(leaderboard.to_json()), "stages": stages}, indent=2)


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
