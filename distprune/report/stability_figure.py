"""The figure of stability: how much masks agree across seeds and across λ, beside chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from distprune.core.units import UnitKind
from distprune.library.layer_values import average
from distprune.library.stability import MaskAgreement, Stability
from distprune.report.canvas import BLACK, GREY, PALE_GREY, create_figure, render, style_axes

MOST_MILESTONES = 5
"""Milestones that are drawn; of more, as many evenly spaced ones, the last among them."""

JACCARD = "Jaccard index (1 = same units)"


def draw_stability(stability: Stability) -> bytes:
    """Draw stability as PNG; see `build_stability_figure`."""
    return render(build_stability_figure(stability))


def build_stability_figure(stability: Stability) -> Figure:
    """Return a figure with a row for each unit kind.

    From left to right: agreement of the masks of different seeds over λ, of the masks of different
    λ by layer, and of the scores of different seeds by layer. Dashes are what random masks of the
    same size come to.
    """
    figure = create_figure(13.0, 7.4)
    shown = choose_milestones(stability.masks)
    for row, kind in enumerate(UnitKind):
        panels = [
            figure.add_axes((0.055 + 0.325 * column, 0.585 - 0.475 * row, 0.26, 0.335))
            for column in range(3)
        ]
        _draw_across_seeds(panels[0], kind, stability, shown)
        _draw_across_coefficients(panels[1], kind, shown)
        _draw_scores(panels[2], kind, stability)
        for panel in panels:
            panel.grid(axis="y", color=PALE_GREY, linewidth=0.6)
            panel.set_axisbelow(True)
    _add_legend(figure, shown)
    return figure


def choose_milestones(masks: Sequence[MaskAgreement]) -> list[MaskAgreement]:
    """Return the milestones that are drawn."""
    if len(masks) <= MOST_MILESTONES:
        return list(masks)
    places = np.linspace(0, len(masks) - 1, MOST_MILESTONES).round().astype(int)
    return [masks[place] for place in places]


def _draw_across_seeds(
    axes: Axes, kind: UnitKind, stability: Stability, shown: Sequence[MaskAgreement]
) -> None:
    title = f"{kind}s: masks of {len(stability.seeds)} seeds, mean and range of layers"
    _style(axes, title, "λ (0 = fine-tuned alone, 1 = pre-trained alone)", JACCARD)
    for found, colour in zip(shown, _choose_colours(len(shown)), strict=True):
        values = found.across_seeds[kind]
        axes.fill_between(
            stability.coefficients,
            values.min(axis=1),
            values.max(axis=1),
            color=colour,
            alpha=0.08,
            linewidth=0,
        )
        axes.plot(stability.coefficients, values.mean(axis=1), "-o", color=colour, ms=4)
        axes.axhline(found.chance[kind], color=colour, linewidth=1.0, linestyle="--")


def _draw_across_coefficients(axes: Axes, kind: UnitKind, shown: Sequence[MaskAgreement]) -> None:
    _style(axes, f"{kind}s: masks of different λ, mean and range of seeds", "layer", JACCARD)
    for found, colour in zip(shown, _choose_colours(len(shown)), strict=True):
        values = found.across_coefficients[kind]
        layers = np.arange(values.shape[1])
        axes.fill_between(
            layers, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.08, linewidth=0
        )
        axes.plot(layers, values.mean(axis=0), "-o", color=colour, ms=4)
        axes.axhline(found.chance[kind], color=colour, linewidth=1.0, linestyle="--")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))


def _draw_scores(axes: Axes, kind: UnitKind, stability: Stability) -> None:
    _style(axes, f"{kind}s: scores of different seeds", "layer", "Kendall's τ (1 = same order)")
    values = stability.score_agreement[kind]
    colours = [colormaps["plasma"](c) for c in np.linspace(0, 0.85, len(stability.coefficients))]
    for row, coefficient, colour in zip(values, stability.coefficients, colours, strict=True):
        name = f"λ = {coefficient:g} (mean {float(average(row)):.2f})"
        axes.plot(np.arange(len(row)), row, "-o", color=colour, ms=4, label=name)
    axes.axhline(0.0, color=GREY, linewidth=1.0, linestyle=":")
    axes.set_ylim(-0.35, 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="lower left")


def _style(axes: Axes, title: str, x_name: str, y_name: str) -> None:
    style_axes(axes, title[0].upper() + title[1:], x_name, y_name)
    axes.set_title(axes.get_title(loc="left"), fontsize=9, loc="left")
    axes.set_ylim(0.0, 1.05)


def _choose_colours(count: int) -> list[tuple[float, float, float, float]]:
    return [colormaps["viridis"](place) for place in np.linspace(0.0, 0.85, count)]


def _add_legend(figure: Figure, shown: Sequence[MaskAgreement]) -> None:
    handles = [
        Line2D([], [], color=colour, marker="o", ms=4, label=f"{found.milestone * 100:g} % removed")
        for found, colour in zip(shown, _choose_colours(len(shown)), strict=True)
    ]
    handles.append(
        Line2D([], [], color=BLACK, linestyle="--", label="two random masks of that size")
    )
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.04, 0.0),
        ncols=len(handles),
        fontsize=9,
        frameon=False,
    )
