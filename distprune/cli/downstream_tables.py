"""Tables of downstream training: a ticket beside its controls, and masks x tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from distprune.library.transfer_table import TransferColumn, TransferTable, measure_spread

if TYPE_CHECKING:
    from distprune.trial.downstream import Arm

UNKNOWN = "-"


def show_arms(console: Console, arms: Sequence[Arm], metric: str, note: str) -> None:
    """Print a ticket, its controls and the dense model."""
    console.print(format_arms(arms, metric, note))


def format_arms(arms: Sequence[Arm], metric: str, note: str) -> RenderableType:
    """Return a row an arm: metric on both splits, retention, parameters and MACs."""
    dense = max(arms, key=lambda arm: arm.cost.parameters).cost
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in (f"{metric}\nreport", f"{metric}\nsearch", "retention\nreport"):
        table.add_column(name, justify="right")
    for name in ("encoder\nparams", "MACs"):
        table.add_column(name, justify="right")
    for arm in arms:
        table.add_row(
            str(arm.name),
            format_spread(arm.metrics("report"), ".4f"),
            format_spread(arm.metrics("search"), ".4f"),
            format_spread(arm.retentions, ".3f") if arm.retentions else UNKNOWN,
            _format_saving(arm.cost.parameters, dense.parameters),
            _format_saving(arm.cost.macs, dense.macs),
        )
    return Group(table, Text(note))


def show_transfer(console: Console, table: TransferTable) -> None:
    """Print masks x tasks."""
    console.print(format_transfer(table))


def format_transfer(table: TransferTable) -> RenderableType:
    """Return a row a mask and a column a task, with a random mask and the dense model below."""
    shown = Table(box=box.SIMPLE_HEAD, title="Masks x tasks", title_justify="left")
    shown.add_column("mask,\nfound on")
    for column in table.columns:
        shown.add_column(f"{column.name}\n{column.metric}", justify="right")
    for row in table.rows:
        cells = []
        for column in table.columns:
            metrics = format_spread(table.cell(row.name, column.name).metrics, ".3f")
            gains = format_spread(table.gains(row.name, column.name), "+.3f")
            mark = "*" if row.home == column.name else ""
            cells.append(f"{metrics}{mark}\n{gains}")
        home = row.home or "another task"
        name = row.name if row.name == home else f"{row.name}\n{home}"
        shown.add_row(name, *cells)
    shown.add_section()
    for name, values in list_references(table):
        shown.add_row(name, *(format_spread(numbers, ".3f") for numbers in values))
    return Group(shown, Text(explain_transfer(table)))


def list_references(table: TransferTable) -> list[tuple[str, list[tuple[float, ...]]]]:
    """Return names and metrics by task of what the masks are compared with."""
    controls: dict[tuple[tuple[float, ...], ...], str] = {}
    for row in table.rows:
        values = tuple(table.cell(row.name, column.name).random for column in table.columns)
        controls.setdefault(values, "random" if not controls else f"random as {row.name}")
    references = [(name, list(values)) for values, name in controls.items()]
    dense = [column.dense for column in table.columns]
    constant: list[tuple[float, ...]] = [(column.floor,) for column in table.columns]
    return [*references, ("dense", dense), ("constant", constant)]


def explain_transfer(table: TransferTable) -> str:
    """Return what the numbers are, in a few lines."""
    num_seeds = len(table.seeds)
    spread = f"mean ± standard deviation over {num_seeds} seeds" if num_seeds > 1 else "one seed"
    useless = ", ".join(column.name for column in table.columns if not is_learned(column))
    warning = (
        f"\nwarning: on {useless} the dense model is no better than a constant prediction, so that "
        "column says nothing; train longer or on more examples"
    )
    sizes = ", ".join(
        f"{row.name} {row.heads} heads and {row.neurons:,} neurons" for row in table.rows[:1]
    )
    same = len({(row.heads, row.neurons) for row in table.rows}) == 1
    kept = f"Each mask keeps {sizes.partition(' ')[2]}. " if same else ""
    return (
        f"On the report split, {spread}. Second line: better than a random mask of the same size "
        "on this task (higher is better), paired by seed. * = the mask was found on this task. "
        f"{kept}"
    ).strip() + (warning if useless else "")


def is_learned(column: TransferColumn) -> bool:
    """Say whether the dense model is better than a constant prediction, on average over seeds."""
    mean, _ = measure_spread(column.dense)
    return mean > column.floor if column.higher_is_better else mean < column.floor


def format_spread(values: Sequence[float], form: str) -> str:
    """Return mean and, of several values, standard deviation."""
    mean, spread = measure_spread(values)
    return f"{mean:{form}}" if spread is None else f"{mean:{form}} ± {spread:{form.lstrip('+')}}"


def _format_saving(kept: float, dense: float) -> str:
    return f"-{(1 - kept / dense) * 100:.0f} %"
