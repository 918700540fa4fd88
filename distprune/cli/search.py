"""`distprune search`: run a study, show its progress, print its leaderboard."""

from __future__ import annotations

from pathlib import Path

import typer

from distprune.cli.options import (
    AddressOption,
    FileArgument,
    JsonOption,
    SetOption,
    StorageOption,
    VerboseOption,
    parse_overrides,
)

EXAMPLES = (
    "distprune search search_spaces/quickstart.yaml",
    "distprune search study.yaml --num-trials 50 --set trial.seed=1",
    "distprune search study.yaml --address auto",
)
"""Calls that `--help` shows."""


def search(
    file: Path = FileArgument,
    assignments: list[str] = SetOption,
    storage: Path = StorageOption,
    num_trials: int = typer.Option(
        None, "--num-trials", min=1, help="Trials in all; more than before extends a study."
    ),
    address: str = AddressOption,
    fresh: bool = typer.Option(
        False, "--fresh", help="Set an existing study of this name aside and start anew."
    ),
    confirm: int = typer.Option(
        None,
        "--confirm",
        min=2,
        metavar="SEEDS",
        help="Then confirm the best masks with so many fresh seeds, as `distprune confirm` does.",
    ),
    as_json: bool = JsonOption,
    verbose: bool = VerboseOption,
) -> None:
    """Search for the best mask at every sparsity. Started again, a study goes on where it was."""
    from distprune.cli.searching import SearchCommand
    from distprune.search.study_file import load_study

    overrides = parse_overrides(assignments, storage)
    if num_trials is not None:
        overrides["num_trials"] = num_trials
    command = SearchCommand(
        study=load_study(file, overrides),
        file=file,
        address=address,
        fresh=fresh,
        verbose=verbose,
        seeds=confirm,
    )
    command.execute(as_json)
