"""Latencies as tables that a person can read; times in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from distprune.core.latency_table import Conditions, LatencyTable, LayerLatencies, Machine
from distprune.core.median_interval import MedianInterval

if TYPE_CHECKING:
    from distprune.deployment.latency import PredictionCheck
    from distprune.deployment.latency_measurement import LatencyComparison

NOTHING = "-"


def show_comparisons(
    console: Console,
    name: str,
    comparisons: Sequence[LatencyComparison],
    predictions: Sequence[float | None],
) -> None:
    """Print a line for each of the conditions; columns without values are left out."""
    has_dense = any(comparison.dense is not None for comparison in comparisons)
    is_predicted = any(seconds is not None for seconds in predictions)
    _print_title(console, f"Latency of {name}")
    table = _make_table()
    columns = ["tokens", "threads", "dense\nms", "ms", "speed-up\n[95 %]", "by\nMACs"]
    columns += ["measured\n/ MACs", "table\nms"]
    shown = [True, True, has_dense, True, has_dense, has_dense, has_dense, is_predicted]
    for column, is_shown in zip(columns, shown, strict=True):
        if is_shown:
            table.add_column(column, justify="right")
    for comparison, predicted in zip(comparisons, predictions, strict=True):
        cells = [
            *_name_conditions(comparison.conditions),
            format_ms(None if comparison.dense is None else comparison.dense.median),
            format_ms(comparison.latency.median),
            _format_interval(comparison.speed_up),
            _format_number(comparison.promised),
            _format_number(comparison.realised),
            format_ms(predicted),
        ]
        table.add_row(*(cell for cell, is_shown in zip(cells, shown, strict=True) if is_shown))
    console.print(table)


def show_table_conditions(
    console: Console, table: LatencyTable, file: Path, conditions: Sequence[Conditions]
) -> None:
    """Print what a latency table holds for the conditions that were asked for."""
    _print_title(console, f"Latency table {file}: {table.architecture}")
    lines = _make_table()
    names = ("tokens", "threads", "heads\nms", "neurons\nms", "beside\nms", "outside\nms")
    for name in (*names, "median\nerror", "largest\nerror"):
        lines.add_column(name, justify="right")
    for one in table.latencies:
        if one.conditions not in conditions:
            continue
        errors = (one.error.median, one.error.largest) if one.error else (None, None)
        lines.add_row(
            *_name_conditions(one.conditions),
            format_ms(one.attention[-1]),
            format_ms(one.ffn[-1]),
            format_ms(one.constant),
            format_ms(one.rest),
            *(NOTHING if error is None else f"{error:.1%}" for error in errors),
        )
    console.print(lines)
    console.print(
        "Of one layer: what all heads and all neurons take, and what goes on beside them. Outside: "
        "embeddings, pooler and head of the model."
    )


def show_checks(
    console: Console, checks: Sequence[tuple[LayerLatencies, Sequence[PredictionCheck]]]
) -> None:
    """Print predictions beside measurements of whole models, mask by mask."""
    for latencies, found in checks:
        _print_title(console, str(latencies.conditions))
        table = _make_table()
        names = ("heads\nremoved", "neurons\nremoved", "predicted\nms", "measured\nms", "error")
        for name in names:
            table.add_column(name, justify="right")
        for check in found:
            table.add_row(
                f"{check.heads:.0%}",
                f"{check.neurons:.0%}",
                format_ms(check.predicted),
                format_ms(check.measured),
                f"{check.error:.1%}",
            )
        console.print(table)


def describe_method(machine: Machine, versions: Mapping[str, str], load: float) -> list[str]:
    """Return how it was measured, and on what."""
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return [
        "Medians; models were timed in turn within each round. Speed-up: median of the rounds' "
        "ratios, with its 95 % interval by order statistics.",
        "Inference mode, sequences of full length without padding. MACs are those of the encoder.",
        f"{machine}; load {load:.2f} when it began; {packages}",
    ]


def format_ms(seconds: float | None) -> str:
    """Return seconds as milliseconds with three digits."""
    if seconds is None:
        return NOTHING
    milliseconds = seconds * 1e3
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def _print_title(console: Console, title: str) -> None:
    console.print(title, markup=False, highlight=False, soft_wrap=True)


def _make_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _name_conditions(conditions: Conditions) -> tuple[str, str]:
    return f"{conditions.batch} x {conditions.length}", str(conditions.threads)


def _format_number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _format_interval(interval: MedianInterval | None) -> str:
    if interval is None:
        return NOTHING
    return f"{interval.median:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
