"""`distprune transfer`: what masks that were found on one task are worth on others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from distprune.cli.downstream import Progress, RewindingOption
from distprune.cli.options import AddressOption, JsonOption, VerboseOption, parse_overrides

if TYPE_CHECKING:
    from distprune.library.study_folder import StudyStorage
    from distprune.library.transfer_table import TransferTable
    from distprune.search.transfer import NamedMask

EXAMPLES = (
    "distprune transfer studies/movies studies/tweets --milestone 0.5",
    "distprune transfer --demo --milestone 0.5",
    "distprune transfer --masks mine=mask.safetensors --tasks demo:nyt --tasks task.yaml",
)
"""Calls that `--help` shows."""

EXIT_INTERRUPTED = 130


def transfer(
    studies: list[str] = typer.Argument(
        None,
        help="Folders or URIs of studies; their best masks at --milestone are used.",
        show_default=False,
    ),
    masks: list[str] = typer.Option(
        None,
        "--masks",
        metavar="NAME=FILE",
        help="A mask file, or STUDY/best@0.5; can be given several times.",
        show_default=False,
    ),
    tasks: list[str] = typer.Option(
        None,
        "--tasks",
        help="A demo task or a YAML file with a task; can be given several times. Default: the "
        "four demo domains.",
        show_default=False,
    ),
    milestone: float = typer.Option(
        None,
        "--milestone",
        min=0.01,
        max=0.99,
        help="Sparsity of the masks: a milestone of the studies (default: their last), or what "
        "--search prunes to (default: 0.5).",
        show_default=False,
    ),
    search: bool = typer.Option(
        False, "--search", help="Find a mask on each task first, by one trial; --set pruning.*."
    ),
    demo: bool = typer.Option(
        False, "--demo", help="--search with demo:minilm and short trainings on the demo tasks."
    ),
    model: str = typer.Option(
        None, "--model", help="Checkpoint; default: that of the masks.", show_default=False
    ),
    assignments: list[str] = typer.Option(
        None,
        "--set",
        metavar="NAME=VALUE",
        help="Replace a setting by dotted name: task.*, fine_tuning.*, retraining.*, precision, "
        "seed, resources.*, and with --search pruning.*. Can be given several times.",
        show_default=False,
    ),
    rewinding: str = RewindingOption,
    seeds: int = typer.Option(3, "--seeds", min=1, help="Replicates with seeds of their own."),
    limit: int = typer.Option(
        None, "--limit", min=8, help="Train examples of each task, for quick runs."
    ),
    storage: str = typer.Option(
        None,
        "--storage",
        help="Folder or URI whose store keeps what is computed. Default: that of the first study, "
        "else studies.",
        show_default=False,
    ),
    output: Path = typer.Option(
        None,
        "--output",
        help="Folder of the results. Default: transfer in the storage folder, with a URI in the "
        "working folder.",
        show_default=False,
    ),
    address: str = AddressOption,
    as_json: bool = JsonOption,
    verbose: bool = VerboseOption,
) -> None:
    """Fill the table masks x tasks, beside random masks. What is stored is not computed again."""
    from distprune.cli.terminal import leave, silence_libraries
    from distprune.cli.transfer_plan import Call, plan_transfer
    from distprune.search.transfer import TransferSurroundings, run_transfer

    call = Call(
        studies=tuple(studies or ()),
        masks=tuple(masks or ()),
        tasks=tuple(tasks or ()),
        milestone=milestone,
        is_search=search or demo,
        is_demo=demo,
        model=model,
        overrides=parse_overrides(assignments),
        rewinding=rewinding,
        num_seeds=seeds,
        limit=limit,
    )
    plan = plan_transfer(call)
    place = choose_storage(storage, call.studies)
    surroundings = TransferSurroundings(place.store, call.read_resources(), address, verbose)
    if not verbose:
        silence_libraries()
    try:
        table, used = run_transfer(plan, surroundings, Progress())
    except KeyboardInterrupt:
        typer.echo(
            "\ninterrupted; nothing that was finished is lost, the same command goes on", err=True
        )
        leave(EXIT_INTERRUPTED)
    folder = output or (place.folder if place.uri is None else Path.cwd()) / "transfer"
    write_results(table, used if call.is_search else (), folder)
    if as_json:
        typer.echo(table.to_json(), nl=False)
    else:
        show_results(table, folder)


def choose_storage(given: str | None, studies: Sequence[str]) -> StudyStorage:
    """Return the storage whose store is used."""
    from distprune.library.study_folder import find_study, locate_storage

    if given is None and studies:
        return find_study(studies[0]).place
    return locate_storage("studies" if given is None else given)


def write_results(table: TransferTable, found: Sequence[NamedMask], folder: Path) -> None:
    """Write table and figure, and the masks that were found.

    Raises:
        StorageError: A file cannot be written; each one is whole or not there.
    """
    from distprune.core.atomic_file import write_file
    from distprune.report.transfer_figure import draw_transfer

    for mask in found:
        mask.mask.save(folder / "masks" / f"{mask.name}.safetensors")
    write_file(folder / "transfer.json", table.to_json())
    write_file(folder / "transfer.csv", table.to_csv())
    write_file(folder / "transfer.png", draw_transfer(table))


def show_results(table: TransferTable, folder: Path) -> None:
    """Print the table, and where the files are."""
    from rich.console import Console

    from distprune.cli.downstream_tables import show_transfer

    show_transfer(Console(), table)
    typer.echo(f"\nTable and figure  {folder}/transfer.json, transfer.csv, transfer.png")
