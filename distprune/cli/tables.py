"""Tables that a person can read: the leaderboard, a trial's levels, a model's anatomy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from distprune.library.leaderboard import Leaderboard
from distprune.library.mixing_paths import PathSummary, describe_path, format_milestones


def show_leaderboard(console: Console, leaderboard: Leaderboard) -> None:
    """Print the best model at every milestone, with what it is compared with."""
    console.print(format_leaderboard(leaderboard))


def show_mixing_paths(console: Console, summaries: Sequence[PathSummary]) -> None:
    """Print a line a level on what the mixing coefficient could have chosen there."""
    if summaries:
        lines = ["", "What λ decides at a level, with the levels before it as they were:"]
        console.print(Text("\n".join([*lines, *map(format_mixing_path, summaries)])))


def format_mixing_path(summary: PathSummary) -> str:
    """Return what the mixing coefficient could have chosen at one level."""
    sparsity = format_milestones(summary.milestones)
    return f"{sparsity} (trial {summary.trial}, level {summary.level}): {describe_path(summary)}"


def format_leaderboard(leaderboard: Leaderboard) -> RenderableType:
    """Return the leaderboard as a table with a line of explanation below."""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"Best masks of {leaderboard.study}", title_justify="left"
    )
    for name in ("removed", f"{leaderboard.metric}\nreport", f"{leaderboard.metric}\nsearch"):
        table.add_column(name, justify="right")
    for name in ("retention", "encoder\nparams", "MACs", "trial", "level"):
        table.add_column(name, justify="right")
    table.add_row(
        "dense",
        _number(leaderboard.dense.get("report")),
        _number(leaderboard.dense.get("search")),
        "1.000",
        "-0 %",
        "-0 %",
        "",
        "0",
    )
    for row in leaderboard.rows:
        table.add_row(
            f"{row.milestone * 100:g} %",
            _number(row.report_metric),
            _number(row.search_metric),
            f"{row.retention:.3f}",
            f"-{row.sparsities.encoder_parameters * 100:.0f} %",
            f"-{row.sparsities.macs * 100:.0f} %",
            str(row.trial),
            str(row.level),
        )
    settings = {row.trial: format_parameters(row.parameters) for row in leaderboard.rows}
    lines = [f"trial {trial}: {text}" for trial, text in sorted(settings.items()) if text]
    return Group(table, Text("\n".join([*lines, "", _explain(leaderboard)])))


def format_parameters(parameters: Mapping[str, Any]) -> str:
    """Return searched settings in short: last part of the name, numbers with three digits."""
    return " ".join(
        f"{name.rpartition('.')[2]}={_short(value)}" for name, value in parameters.items()
    )


def _explain(leaderboard: Leaderboard) -> str:
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(leaderboard.outcomes.items()))
    better = "higher" if leaderboard.higher_is_better else "lower"
    return (
        f"Trials: {outcomes}. Metric: {leaderboard.metric}, {better} is better; a constant "
        f"prediction scores {_number(leaderboard.floor.get('report'))} on the report split. Masks "
        "were chosen on the search split only."
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
