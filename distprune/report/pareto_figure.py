"""The figure of trade-offs: retention of every level against what it costs, and the front."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from distprune.library.constraints import Constraints, Cost, Point, find_front, list_costs
from distprune.report.canvas import (
    BLACK,
    GREEN,
    ORANGE,
    PALE_BLUE,
    PALE_GREY,
    RED,
    create_figure,
    render,
    style_axes,
)

AXES = {
    Cost.LATENCY: ("latency", "predicted latency (ms)"),
    Cost.PARAMETERS: ("parameters", "encoder parameters left (%)"),
    Cost.MACS: ("MACs", "encoder MACs left (%)"),
}
"""Title and name of the axis of each cost."""


def draw_pareto(
    points: Sequence[Point], constraints: Constraints, answer: Point | None = None
) -> bytes:
    """Draw the levels of a study against their costs as PNG; see `build_pareto_figure`."""
    return render(build_pareto_figure(points, constraints, answer))


def build_pareto_figure(
    points: Sequence[Point], constraints: Constraints, answer: Point | None = None
) -> Figure:
    """Return a figure with a panel for each cost that is known.

    Args:
        points: Every level of the study.
        constraints: Drawn as dashed lines, where there are any.
        answer: The best level under them, if it is to be marked.
    """
    costs = list_costs(points)
    figure = create_figure(0.6 + 4.2 * len(costs), 4.6)
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(left=0.75 / figure.get_figwidth(), right=0.985, top=0.92, bottom=0.22)
    for axes, cost in zip(panels, costs, strict=True):
        title, name = AXES[cost]
        style_axes(axes, title, name, "retention (search split)" if axes is panels[0] else "")
        axes.grid(color=PALE_GREY, linewidth=0.6)
        axes.set_axisbelow(True)
        _draw_points(axes, points, cost, answer)
        _draw_limits(axes, cost, constraints)
    _draw_legend(figure, constraints, answer)
    return figure


def scale(cost: Cost, value: float) -> float:
    """Return a cost as its axis shows it: milliseconds, or percent of the dense encoder."""
    return value * (1e3 if cost is Cost.LATENCY else 1e2)


def _draw_points(axes: Axes, points: Sequence[Point], cost: Cost, answer: Point | None) -> None:
    dense = [point for point in points if point.level == 0]
    pruned = [point for point in points if point.level > 0]
    front = find_front(points, cost)
    for group, colour, marker, label in (
        (pruned, PALE_BLUE, ".", "level"),
        (dense, GREEN, "s", "dense"),
    ):
        axes.plot(*_place(group, cost), color=colour, marker=marker, linestyle="", label=label)
    axes.plot(
        *_place(front, cost),
        color=BLACK,
        linewidth=1.4,
        marker="o",
        markersize=4,
        drawstyle="steps-post",
        label="front",
    )
    if answer is not None:
        axes.plot(
            *_place([answer], cost), color=RED, marker="*", markersize=14, label="answer", zorder=5
        )


def _place(points: Sequence[Point], cost: Cost) -> tuple[list[float], list[float]]:
    costs = [scale(cost, point.measure(cost)) for point in points]
    return costs, [point.retention for point in points]


def _draw_limits(axes: Axes, cost: Cost, constraints: Constraints) -> None:
    limit = constraints.limit(cost)
    style = {"color": ORANGE, "linewidth": 1.2, "linestyle": "--"}
    if limit is not None:
        axes.axvline(scale(cost, limit), **style)  # type: ignore[arg-type]
    if constraints.min_retention is not None:
        axes.axhline(constraints.min_retention, **style)  # type: ignore[arg-type]


def _draw_legend(figure: Figure, constraints: Constraints, answer: Point | None) -> None:
    handles = [
        Line2D([], [], color=BLACK, linewidth=1.4, marker="o", label="no level beats these"),
        Line2D([], [], color=PALE_BLUE, marker=".", linestyle="", label="level of a trial"),
        Line2D([], [], color=GREEN, marker="s", linestyle="", label="dense"),
    ]
    if constraints != Constraints():
        handles.append(Line2D([], [], color=ORANGE, linestyle="--", label="constraint"))
    if answer is not None:
        star = Line2D([], [], color=RED, marker="*", markersize=12, linestyle="", label="answer")
        handles.append(star)
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), fontsize=9, frameon=False
    )
