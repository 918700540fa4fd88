"""The `distprune` command: its verbs, and how errors become one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import typer

from distprune import __version__
from distprune.cli import (
    bench,
    check,
    confirm,
    doctor,
    export,
    mask,
    plan,
    register,
    results,
    run,
    search,
    store,
    train,
    transfer,
    ui,
    validate,
)
from distprune.cli.terminal import EXIT_INTERRUPTED
from distprune.errors import DistpruneError, InputError

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2

app = typer.Typer(
    name="distprune",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Find out how far a Transformer can be cut, and which heads and neurons to keep.\n\n"
    "Exit codes: 0 done, 1 the study failed, 2 bad input, 130 interrupted.",
    epilog="Example: distprune search search_spaces/quickstart.yaml",
)

Verbs = tuple[tuple[Callable[..., None], tuple[str, ...]], ...]

VERBS: Verbs = (
    (search.search, search.EXAMPLES),
    (run.run, run.EXAMPLES),
    (validate.validate, validate.EXAMPLES),
    (doctor.doctor, doctor.EXAMPLES),
    (plan.plan, plan.EXAMPLES),
    (results.results, results.EXAMPLES),
    (confirm.confirm, confirm.EXAMPLES),
    (export.export, export.EXAMPLES),
    (bench.bench, bench.EXAMPLES),
    (train.train, train.EXAMPLES),
    (transfer.transfer, transfer.EXAMPLES),
    (register.register, register.EXAMPLES),
    (ui.ui, ui.EXAMPLES),
    (check.check, check.EXAMPLES),
)


def add_verbs(group: typer.Typer, verbs: Verbs) -> None:
    """Make commands of functions, with examples below their help."""
    for verb, examples in verbs:
        group.command(epilog=list_examples(examples))(verb)


def list_examples(examples: Iterable[str]) -> str:
    """Return the lines below a help; the backspace tells click not to wrap them."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)


def add_group(name: str, words: str, verbs: Verbs, examples: Iterable[str]) -> None:
    """Add verbs below a name of their own."""
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help=words, epilog=list_examples(examples)
    )
    add_verbs(group, verbs)
    app.add_typer(group, name=name)


add_verbs(app, VERBS)
add_group(
    "store",
    "See what the store of a storage folder holds, verify it, make it smaller.",
    store.VERBS,
    store.EXAMPLES,
)
add_group("mask", "Look at masks, compare them, combine them.", mask.VERBS, mask.EXAMPLES)


@app.callback(invoke_without_command=True)
def describe(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Print the version where asked for."""
    if version:
        typer.echo(f"distprune {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except InputError as error:
        fail(error, EXIT_BAD_INPUT)
    except DistpruneError as error:
        fail(error, EXIT_FAILED)


def fail(error: Exception, code: int) -> None:
    """Print each problem as one line and exit with `code`."""
    for line in str(error).splitlines():
        typer.echo(f"error: {line}", err=True)
    sys.exit(code)
