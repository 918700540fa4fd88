"""Constraints that nobody stated before the study: `distprune results STUDY --max-latency-ms 4`."""

from __future__ import annotations

import json

import typer
from rich.console import Console

from distprune.cli.constraint_question import Question
from distprune.cli.constraint_tables import describe_answer, show_fronts
from distprune.core.atomic_file import write_file
from distprune.library.leaderboard import Leaderboard
from distprune.library.study_folder import StudyFolder

EXAMPLES = (
    "distprune results studies/quickstart --max-latency-ms 4 --min-retention 0.95 "
    "--latency-table latency.json",
    "distprune results studies/quickstart --max-macs 0.4 --mask small.safetensors",
)
"""Calls that `distprune results --help` shows."""

EXIT_NOTHING = 1
"""Exit code where no level meets the constraints."""

MaxLatencyOption = typer.Option(
    None,
    "--max-latency-ms",
    help="Best level of all trials with at most this latency, predicted by --latency-table.",
    show_default=False,
)
MinRetentionOption = typer.Option(
    None,
    "--min-retention",
    help="Only levels that keep this share of the dense model's advantage.",
    show_default=False,
)
MaxParametersOption = typer.Option(
    None,
    "--max-parameters",
    help="Only levels with at most this share of the dense encoder's parameters, above 0 to 1.",
    show_default=False,
)
MaxMacsOption = typer.Option(
    None,
    "--max-macs",
    help="Only levels with at most this share of the dense encoder's MACs, above 0 to 1.",
    show_default=False,
)
LatencyTableOption = typer.Option(
    None,
    "--latency-table",
    help="Table that `distprune bench MODEL --table FILE` measured; without it the study's own, if "
    "its objective is one of latency.",
    show_default=False,
)
BatchOption = typer.Option(
    None, "--batch", help="Batch, if the table has several.", show_default=False
)
LengthOption = typer.Option(
    None,
    "--length",
    help="Tokens, if the table has several; also those that MACs are counted for.",
    show_default=False,
)
ThreadsOption = typer.Option(
    None, "--threads", help="Threads, if the table has several.", show_default=False
)
AnyMachineOption = typer.Option(
    False, "--any-machine", help="Use a table that was measured on another machine."
)
MaskFileOption = typer.Option(
    None, "--mask", help="Where to write the mask of the answer.", show_default=False
)


def answer_question(
    folder: StudyFolder, leaderboard: Leaderboard, question: Question, as_json: bool
) -> None:
    """Print the best level under the question's constraints and the front, and draw it.

    Where no level meets them: says which comes nearest, and exits with 1.

    Raises:
        InputError: A limit, the table or the study cannot be used.
    """
    from distprune.cli.constraint_answer import find_answer, summarise_answer
    from distprune.report.pareto_figure import draw_pareto

    answer = find_answer(folder, leaderboard, question)
    figure = folder.report / "pareto.png"
    write_file(figure, draw_pareto(answer.points, answer.constraints, answer.best))
    if question.mask is not None and answer.mask is not None:
        answer.mask.save(question.mask)
    if as_json:
        typer.echo(json.dumps(summarise_answer(answer), indent=2))
    else:
        console = Console()
        typer.echo(describe_answer(answer))
        show_fronts(console, answer)
        typer.echo(f"Figure: {figure}")
        if question.mask is not None and answer.mask is not None:
            typer.echo(f"Mask:   {question.mask}")
    if answer.best is None:
        raise typer.Exit(EXIT_NOTHING)
