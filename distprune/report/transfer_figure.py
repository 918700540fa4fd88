"""The figure of mask transfer: masks x tasks, coloured by what a mask gains over a random one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from distprune.library.transfer_table import TransferTable, measure_spread
from distprune.report.canvas import BLACK, create_figure, render

COLOURS = "PuOr_r"
"""Two hues that colour-blind readers can tell apart, pale where a mask is as good as random."""

CELL_WIDTH, CELL_HEIGHT = 1.75, 0.85
LEFT, RIGHT, BOTTOM, TOP = 1.9, 1.6, 1.15, 0.7
"""Inches: margins for the names of masks, the colour bar, the names of tasks, the title."""

SMALLEST_WIDTH, SMALLEST_HEIGHT = 7.4, 2.0
"""Inches of the page, for the title, and of the cells, for the name of the colours."""

SMALLEST_RANGE = 1e-3
"""Ends of the colours at least, so that equal masks are not told apart by rounding."""


def draw_transfer(table: TransferTable) -> bytes:
    """Draw masks x tasks as PNG; see `build_transfer_figure`."""
    return render(build_transfer_figure(table))


def build_transfer_figure(table: TransferTable) -> Figure:
    """Return a heat map; each cell has its gain over a random mask, and the metric itself.

    A frame marks the task that a mask was found on.
    """
    gains = measure_gains(table)
    num_rows, num_columns = gains.shape
    width, height = num_columns * CELL_WIDTH, max(num_rows * CELL_HEIGHT, SMALLEST_HEIGHT)
    page = max(LEFT + width + RIGHT, SMALLEST_WIDTH), BOTTOM + height + TOP
    figure = create_figure(*page)
    place = (LEFT / page[0], BOTTOM / page[1], width / page[0], height / page[1])
    axes = figure.add_axes(place)
    limit = max(float(np.abs(gains).max()), SMALLEST_RANGE)
    image = axes.imshow(gains, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto")
    _write_cells(axes, table, gains, limit)
    _frame_homes(axes, table)
    _name_axes(axes, table)
    figure.suptitle(_write_title(table), fontsize=11, x=0.15 / page[0], ha="left")
    bar = figure.add_axes(((LEFT + width + 0.2) / page[0], place[1], 0.18 / page[0], place[3]))
    figure.colorbar(image, cax=bar)
    bar.set_ylabel(f"gain over random\n({name_unit(table)})", fontsize=9)
    bar.tick_params(labelsize=9)
    return figure


def measure_gains(table: TransferTable) -> NDArray[np.float64]:
    """Return the mean gains over random masks, [mask, task]; higher is better."""
    return np.array(
        [
            [measure_spread(table.gains(row.name, column.name))[0] for column in table.columns]
            for row in table.rows
        ]
    )


def name_unit(table: TransferTable) -> str:
    """Return the unit of the gains: the tasks' metric, or that they are several."""
    metrics = {column.metric for column in table.columns}
    return metrics.pop() if len(metrics) == 1 else "each task's own metric"


def _write_cells(
    axes: Axes, table: TransferTable, gains: NDArray[np.float64], limit: float
) -> None:
    for y, row in enumerate(table.rows):
        for x, column in enumerate(table.columns):
            metrics = table.cell(row.name, column.name).metrics
            colour = "white" if abs(gains[y, x]) > 0.7 * limit else BLACK
            text = f"{_format(table.gains(row.name, column.name), '+.3f')}"
            axes.text(x, y - 0.14, text, ha="center", va="center", color=colour, fontsize=10)
            text = f"{column.metric} {_format(metrics, '.3f')}"
            axes.text(x, y + 0.2, text, ha="center", va="center", color=colour, fontsize=7.5)


def _frame_homes(axes: Axes, table: TransferTable) -> None:
    tasks = [column.name for column in table.columns]
    for y, row in enumerate(table.rows):
        if row.home in tasks:
            corner = tasks.index(row.home) - 0.5, y - 0.5
            frame = Rectangle(corner, 1, 1, fill=False, edgecolor=BLACK, linewidth=2.2)
            frame.set_clip_on(False)
            axes.add_patch(frame)


def _name_axes(axes: Axes, table: TransferTable) -> None:
    tasks = [
        f"{column.name}\ndense {_format(column.dense, '.3f')}\nconstant {column.floor:.3f}"
        for column in table.columns
    ]
    masks = [f"{row.name}\n{row.heads} heads,\n{row.neurons:,} neurons" for row in table.rows]
    axes.set_xticks(range(len(tasks)), tasks, fontsize=9)
    axes.set_yticks(range(len(masks)), masks, fontsize=9)
    axes.set_xlabel("task that the mask is trained and measured on", fontsize=10)
    axes.set_ylabel("mask, found on", fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _write_title(table: TransferTable) -> str:
    num_seeds = len(table.seeds)
    spread = f"mean ± sd over {num_seeds} seeds" if num_seeds > 1 else "one seed"
    removed = "" if table.milestone is None else f" at {table.milestone * 100:g} % removed"
    return (
        f"Masks{removed} across tasks, report split, {spread}\n"
        "large: gain over a random mask of the same size; framed: the mask's own task"
    )


def _format(values: Sequence[float], form: str) -> str:
    mean, spread = measure_spread(values)
    return f"{mean:{form}}" if spread is None else f"{mean:{form}} ± {spread:{form.lstrip('+')}}"
