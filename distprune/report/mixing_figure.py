"""The figure of the mixing path: which units change hands as λ goes from 0 to 1."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from distprune.core.importance_scores import FloatArray
from distprune.core.mixing_path import MixingPath
from distprune.core.units import UnitKind
from distprune.library.mixing_paths import (
    WHOLE,
    PathSummary,
    TracedLevel,
    describe_path,
    format_milestones,
)
from distprune.report.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    create_figure,
    render,
    style_axes,
)

MOST_HEADS = 40
"""Heads that have a row; of more, those that change hands most often."""

COEFFICIENT_AXIS = "λ (0 = fine-tuned importance alone, 1 = pre-trained alone)"

PARTS = {
    str(UnitKind.HEAD): ("heads", BLUE),
    str(UnitKind.NEURON): ("neurons", GREEN),
    WHOLE: ("whole masks", BLACK),
}
"""Name and colour of each part of a mask that is counted."""

LEFT, PANEL, GAP, COUNTS, RIGHT = 0.8, 6.0, 1.9, 2.6, 0.2
"""Inches from left to right: margin, panels over λ, space between, panel of counts, margin."""

BOTTOM, BETWEEN, TOP, ROW = 0.6, 1.1, 1.25, 0.17
"""Inches from below: axis, space between the panels, titles; one row of a panel."""

COUNTS_ROW, COUNTS_LEGEND = 0.55, 1.4
"""Inches of one level in the panel of counts, and of the axis and the legend below it."""


@dataclass(frozen=True)
class HeadRow:
    """A head that λ decides about.

    Attributes:
        layer: Its layer, 0 = input.
        head: Its number in the layer.
        spans: (from λ, to λ, is kept), in order; they cover [0, 1].
    """

    layer: int
    head: int
    spans: tuple[tuple[float, float, bool], ...]


def draw_mixing(levels: Sequence[TracedLevel]) -> bytes | None:
    """Draw the mixing path as PNG; for arguments and None see `build_mixing_figure`."""
    figure = build_mixing_figure(levels)
    return None if figure is None else render(figure)


def build_mixing_figure(levels: Sequence[TracedLevel]) -> Figure | None:
    """Return a figure of the last level that has a mixing path, and of the counts of all levels.

    Args:
        levels: The best levels of a study, milestones increasing.

    Returns:
        The figure; None where no level has a path.
    """
    traced = [(level.summary, level.path) for level in levels if level.path is not None]
    if not traced:
        return None
    summary, path = traced[-1]
    rows = find_changing_heads(path)
    neurons = max(1.3, ROW * path.start.num_layers)
    counts = 0.3 + COUNTS_ROW * len(levels)
    heads = max(1.3, ROW * min(len(rows), MOST_HEADS), counts + COUNTS_LEGEND - BETWEEN - neurons)
    page = _Page.fit(heads + neurons)
    page.figure.suptitle(_write_title(summary), fontsize=11, x=0.02, ha="left")
    upper = page.add_axes(LEFT, BOTTOM + neurons + BETWEEN, PANEL, heads)
    lower = page.add_axes(LEFT, BOTTOM, PANEL, neurons)
    scale = page.add_axes(LEFT + PANEL + 0.1, BOTTOM, 0.12, neurons)
    _draw_heads(upper, rows)
    _draw_neurons(lower, scale, path)
    for axes in (upper, lower):
        axes.set_xlim(0.0, 1.0)
        used = summary.coefficient or 0.0
        axes.axvline(used, color="white", linewidth=2.4)
        axes.axvline(used, color=BLACK, linewidth=1.6, linestyle="--")
    _add_legend(upper, summary)
    bottom = BOTTOM + neurons + BETWEEN + heads - counts
    panel = page.add_axes(LEFT + PANEL + GAP, bottom, COUNTS, counts)
    _draw_counts(panel, [level.summary for level in levels])
    page.add_legend(LEFT + PANEL + GAP, bottom - 0.5)
    return page.figure


@dataclass(frozen=True)
class _Page:
    """A figure on which places are given in inches."""

    figure: Figure

    @classmethod
    def fit(cls, panels: float) -> _Page:
        """Return a page with room for two panels over λ of this height together."""
        width = LEFT + PANEL + GAP + COUNTS + RIGHT
        return cls(create_figure(width, BOTTOM + BETWEEN + TOP + panels))

    def add_axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Add axes with this lower left corner and this size."""
        across, down = self.figure.get_figwidth(), self.figure.get_figheight()
        return self.figure.add_axes((left / across, bottom / down, width / across, height / down))

    def add_legend(self, left: float, top: float) -> None:
        """Explain the colours of the counts, below their panel."""
        place = left / self.figure.get_figwidth(), top / self.figure.get_figheight()
        self.figure.legend(
            handles=[Patch(facecolor=colour, label=name) for name, colour in PARTS.values()],
            loc="upper left",
            bbox_to_anchor=place,
            fontsize=9,
            frameon=False,
        )


def find_changing_heads(path: MixingPath) -> list[HeadRow]:
    """Return the heads that are not the same for every λ, by layer and head."""
    turns: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    for exchange in path.exchanges:
        for kind, layer, head in exchange.units:
            if kind is UnitKind.HEAD:
                turns[layer, head].append(float(exchange.coefficient))
    rows = []
    for (layer, head), at in sorted(turns.items()):
        is_kept = bool(path.start[UnitKind.HEAD][layer, head])
        ends = zip([0.0, *at], [*at, 1.0], strict=True)
        spans = ((low, high, is_kept == (turn % 2 == 0)) for turn, (low, high) in enumerate(ends))
        rows.append(HeadRow(layer, head, tuple(spans)))
    return rows


def count_kept_neurons(path: MixingPath) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return where λ changes neurons, with 0 and 1, and [layer, interval] neurons kept between."""
    kept = path.start[UnitKind.NEURON].copy()
    edges, counts = [0.0], [kept.sum(axis=1)]
    for exchange in path.exchanges:
        units = [(layer, unit) for kind, layer, unit in exchange.units if kind is UnitKind.NEURON]
        if not units:
            continue
        for at in units:
            kept[at] = not kept[at]
        edges.append(float(exchange.coefficient))
        counts.append(kept.sum(axis=1))
    return np.array([*edges, 1.0]), np.stack(counts, axis=1)


def _draw_heads(axes: Axes, rows: Sequence[HeadRow]) -> None:
    shown = sorted(rows, key=lambda row: -len(row.spans))[:MOST_HEADS]
    shown.sort(key=lambda row: (row.layer, row.head))
    title = f"{len(rows)} heads that λ decides about"
    if len(shown) < len(rows):
        title += f"; shown are the {len(shown)} that change hands most often"
    style_axes(axes, title, COEFFICIENT_AXIS, "layer.head")
    axes.set_title(title, fontsize=11, loc="left", pad=26)
    if not rows:
        _say(axes, "the same heads for every λ")
    for line, row in enumerate(shown):
        for low, high, is_kept in row.spans:
            axes.barh(line, high - low, left=low, height=0.8, color=BLUE if is_kept else ORANGE)
    axes.set_yticks(range(len(shown)), [f"{row.layer}.{row.head}" for row in shown])
    axes.set_ylim(-0.5, max(len(shown), 1) - 0.5)


def _draw_neurons(axes: Axes, scale: Axes, path: MixingPath) -> None:
    edges, counts = count_kept_neurons(path)
    num_layers, num_neurons = path.start[UnitKind.NEURON].shape
    style_axes(
        axes, f"Neurons kept of the {num_neurons:,} of each layer", COEFFICIENT_AXIS, "layer"
    )
    layers = np.arange(num_layers + 1) - 0.5
    mesh = axes.pcolormesh(edges, layers, counts, cmap="viridis")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axes.figure.colorbar(mesh, cax=scale)
    scale.tick_params(labelsize=9)
    scale.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _add_legend(axes: Axes, summary: PathSummary) -> None:
    used = f"λ of trial {summary.trial}: {summary.coefficient:.3g}"
    axes.legend(
        handles=[
            Patch(facecolor=BLUE, label="kept"),
            Patch(facecolor=ORANGE, label="removed"),
            Line2D([], [], color=BLACK, linewidth=1.6, linestyle="--", label=used),
        ],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.2,
        ncols=3,
        fontsize=9,
        frameon=False,
    )


def _draw_counts(axes: Axes, summaries: Sequence[PathSummary]) -> None:
    style_axes(axes, "Different masks per level", "number (logarithmic)", "")
    largest = 1
    for line, summary in enumerate(summaries):
        if summary.parts is None:
            axes.text(1.2, line, "no path", va="center", color=GREY, fontsize=9)
            continue
        for place, (part, (_, colour)) in enumerate(PARTS.items()):
            count = summary.parts[part].masks
            largest = max(largest, count)
            at = line + 0.25 * (place - 1)
            axes.barh(at, count - 0.7, left=0.7, height=0.2, color=colour)
            axes.text(count * 1.15, at, f"{count:,}", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(0.7, max(largest, 10) * 6)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(summaries)), [format_milestones(s.milestones) for s in summaries])
    axes.set_ylim(len(summaries) - 0.5, -0.5)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)


def _write_title(summary: PathSummary) -> str:
    return (
        f"Best at {format_milestones(summary.milestones)} removed (trial {summary.trial}, level "
        f"{summary.level}):\n{describe_path(summary)}"
    )
