"""The figure of a confirmation: each seed of each arm, and the differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from distprune.library.confirmation import (
    BEST,
    DENSE,
    Arm,
    Confirmation,
    ConfirmedMask,
    choose_unit,
)
from distprune.library.mixing_paths import format_milestones
from distprune.report.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE_GREY,
    RED,
    create_figure,
    render,
    style_axes,
)

LEFT, PANEL, GAP, RIGHT = 2.0, 4.2, 0.4, 0.25
"""Inches from left to right: names of the arms, a panel, space between, margin."""

BOTTOM, TOP, ROW, LEGEND = 0.6, 0.45, 0.26, 0.35
"""Inches from below: axis, title, a row, the legend."""


@dataclass(frozen=True)
class Row:
    """A line of the figure: an arm, or the title of a mask (None).

    Attributes:
        place: Its place from above.
        mask: The best mask that it belongs to.
        arm: The arm.
    """

    place: int
    mask: ConfirmedMask
    arm: Arm | None


def draw_confirmation(confirmation: Confirmation) -> bytes:
    """Draw a confirmation as PNG; see `build_confirmation_figure`."""
    return render(build_confirmation_figure(confirmation))


def build_confirmation_figure(confirmation: Confirmation) -> Figure:
    """Return a figure with a row for each arm: its seeds to the left, its difference to the right.

    Args:
        confirmation: What was found.
    """
    rows = list_rows(confirmation)
    height = BOTTOM + LEGEND + ROW * len(rows) + TOP
    width = LEFT + 2 * PANEL + GAP + RIGHT
    figure = create_figure(width, height)
    panels = [
        figure.add_axes(
            (
                (LEFT + number * (PANEL + GAP)) / width,
                (BOTTOM + LEGEND) / height,
                PANEL / width,
                ROW * len(rows) / height,
            )
        )
        for number in range(2)
    ]
    _draw_metrics(panels[0], rows, confirmation)
    _draw_differences(panels[1], rows, confirmation)
    for panel in panels:
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_yticks([])
        panel.grid(axis="x", color=PALE_GREY, linewidth=0.6)
        panel.set_axisbelow(True)
    _name_rows(panels[0], rows)
    _add_legend(figure)
    return figure


def list_rows(confirmation: Confirmation) -> list[Row]:
    """Return the lines of the figure: a title for each best mask, then its arms."""
    rows: list[Row] = []
    for mask in confirmation.masks:
        for arm in (None, *mask.arms):
            rows.append(Row(len(rows), mask, arm))
    return rows


def choose_colour(arm: Arm) -> str:
    """Return the colour of an arm's difference: what follows from it."""
    if arm.difference is None or not arm.difference.is_settled:
        return GREY
    return BLUE if arm.difference.low > 0 else RED


def _draw_metrics(axes: Axes, rows: Sequence[Row], confirmation: Confirmation) -> None:
    direction = "higher" if confirmation.higher_is_better else "lower"
    style_axes(
        axes,
        "Each seed, and the mean",
        f"{confirmation.metric} on the report split ({direction} is better)",
        "",
    )
    colours = {BEST: BLACK, DENSE: GREEN}
    for row in rows:
        if row.arm is None:
            continue
        if row.arm.name == BEST:
            _draw_own_run(axes, row)
        colour = colours.get(row.arm.name, ORANGE)
        places = [row.place] * len(row.arm.metrics)
        axes.plot(row.arm.metrics, places, "o", color=colour, markersize=4.5, alpha=0.7)
        if row.arm.mean is not None:
            axes.plot([row.arm.mean], [row.place], "|", color=colour, markersize=14, mew=2)


def _draw_own_run(axes: Axes, row: Row) -> None:
    """Draw what the study itself had, where it chose and where it did not."""
    axes.plot([row.mask.search_metric], [row.place], "D", color=BLACK, mfc="white", markersize=5)
    if row.mask.report_metric is not None:
        axes.plot([row.mask.report_metric], [row.place], "s", color=BLACK, mfc="white", ms=5)


def _draw_differences(axes: Axes, rows: Sequence[Row], confirmation: Confirmation) -> None:
    scale, unit = choose_unit(confirmation.metric)
    percent = f"{confirmation.confidence * 100:.3g} %"
    style_axes(
        axes,
        f"By how much the best mask is better, {percent} intervals",
        f"difference in {unit.strip() or confirmation.metric} (> 0: the best mask is better)",
        "",
    )
    axes.axvline(0.0, color=BLACK, linewidth=1.0)
    for row in rows:
        if row.arm is None or row.arm.name == BEST:
            continue
        difference = row.arm.difference
        if difference is None:
            axes.text(
                0.02,
                row.place,
                _shorten(row.arm.note),
                color=GREY,
                fontsize=8,
                va="center",
                transform=axes.get_yaxis_transform(),
            )
            continue
        colour = choose_colour(row.arm)
        ends = [difference.low * scale, difference.high * scale]
        axes.plot(ends, [row.place] * 2, "-", color=colour, linewidth=2)
        axes.plot([difference.estimate * scale], [row.place], "o", color=colour, markersize=5)


def _name_rows(axes: Axes, rows: Sequence[Row]) -> None:
    for row in rows:
        is_title = row.arm is None
        axes.text(
            -0.03 if not is_title else -LEFT / PANEL + 0.03,
            row.place,
            f"{format_milestones(row.mask.milestones)} removed"
            if row.arm is None
            else row.arm.title,
            transform=axes.get_yaxis_transform(),
            ha="left" if is_title else "right",
            va="center",
            fontsize=9,
            fontweight="bold" if is_title else "normal",
        )


def _add_legend(figure: Figure) -> None:
    handles = [
        Line2D([], [], linestyle="", marker="o", color=BLACK, label="fresh seed"),
        _mark("D", "study's own run on search, where it was chosen"),
        _mark("s", "study's own run on report"),
        Line2D([], [], color=BLUE, linewidth=2, label="better"),
        Line2D([], [], color=RED, linewidth=2, label="worse"),
        Line2D([], [], color=GREY, linewidth=2, label="not distinguishable"),
    ]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.01, 0.0),
        ncols=len(handles),
        fontsize=8,
        frameon=False,
        columnspacing=1.2,
        handletextpad=0.5,
    )


def _mark(shape: str, name: str) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker=shape, color=BLACK, markerfacecolor="white", label=name
    )


def _shorten(note: str, most: int = 60) -> str:
    return note if len(note) <= most else f"{note[: most - 3]}..."
