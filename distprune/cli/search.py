"""`distprune search`: run a study, show its progress, print its leaderboard."""

from __future__ import annotations

from pathlib import Path

import typer

from distprune.cli.options import (
    FileArgument,
    JsonOption,
    SearchAddressOption,
    SetOption,
    ShipCodeOption,
    StorageOption,
    VerboseOption,
    is_job_address,
    parse_overrides,
)

EXAMPLES = (
    "distprune search search_spaces/quickstart.yaml",
    "distprune search study.yaml --num-trials 50 --set trial.seed=1",
    "distprune search study.yaml --address auto",
    "distprune search study.yaml --address http://127.0.0.1:8265 --storage s3://bucket/studies",
)
"""Calls that `--help` shows."""


def search(
    file: Path = FileArgument,
    assignments: list[str] = SetOption,
    storage: str = StorageOption,
    num_trials: int = typer.Option(
        None, "--num-trials", min=1, help="Trials in all; more than before extends a study."
    ),
    address: str = SearchAddressOption,
    ship_code: bool = ShipCodeOption,
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
    from distprune.search.study_file import load_study

    overrides = parse_overrides(assignments, storage)
    if num_trials is not None:
        overrides["num_trials"] = num_trials
    study = load_study(file, overrides)
    if is_job_address(address):
        from distprune.cli.submitting import repeat_arguments, submit_search
        from distprune.search.job import StudyJob

        arguments = repeat_arguments(assignments, storage, num_trials, fresh, confirm, verbose)
        submit_search(StudyJob(study, file, arguments, ship_code), address, as_json, verbose)
        return
    from distprune.cli.searching import SearchCommand

    command = SearchCommand(
        study=study,
        file=file,
        address=address,
        fresh=fresh,
        verbose=verbose,
        seeds=confirm,
        ship_code=ship_code,
    )
    command.execute(as_json)
