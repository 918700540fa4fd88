"""Transfer tables made up of round numbers."""

from __future__ import annotations

from distprune.core.cost import Sparsities
from distprune.library.transfer_table import (
    TransferCell,
    TransferColumn,
    TransferRow,
    TransferTable,
)

HALF = Sparsities(heads=0.5, neurons=0.5, encoder_parameters=0.48, macs=0.49)


def make_row(name: str, home: str | None = None) -> TransferRow:
    return TransferRow(name, home, "d" * 64, 4, 20, HALF, 0.0)


def make_column(name: str, higher_is_better: bool = True, num_seeds: int = 2) -> TransferColumn:
    metric = "accuracy" if higher_is_better else "mean_squared_error"
    return TransferColumn(
        name, f"demo:{name}", metric, higher_is_better, 0.5, (0.9, 0.92)[:num_seeds]
    )


def make_cell(mask: str, task: str, metrics: list[float], random: list[float]) -> TransferCell:
    keys = tuple("e" * 64 for _ in metrics)
    return TransferCell(mask, task, tuple(metrics), tuple(random), keys)


def make_table() -> TransferTable:
    """Make two masks on two tasks; a lower metric is better on the second."""
    return TransferTable(
        checkpoint="tiny",
        milestone=0.5,
        seeds=(1, 2),
        rows=(make_row("movies", "movies"), make_row("file")),
        columns=(make_column("movies"), make_column("prices", higher_is_better=False)),
        cells=(
            make_cell("movies", "movies", [0.8, 0.84], [0.7, 0.7]),
            make_cell("movies", "prices", [0.5, 0.3], [0.4, 0.6]),
            make_cell("file", "movies", [0.7, 0.7], [0.7, 0.7]),
            make_cell("file", "prices", [0.2, 0.2], [0.4, 0.6]),
        ),
    )
