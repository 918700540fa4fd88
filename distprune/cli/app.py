"""The `distprune` command: its verbs, and how errors become one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import typer

from distprune import __version__
from distprune.cli import check, results, run, search, store, ui, validate
from distprune.errors import DistpruneError, InputError

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

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
    (results.results, results.EXAMPLES),
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


add_verbs(app, VERBS)
store_group = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="See what the store of a storage folder holds, verify it, make it smaller.",
    epilog=list_examples(store.EXAMPLES),
)
add_verbs(store_group, store.VERBS)
app.add_typer(store_group, name="store")


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
