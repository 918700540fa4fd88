"""The figure of forgetting: how far fine-tuning moves the importance of each layer's units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distprune.core.units import UnitKind
from distprune.library.forgetting import Forgetting
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

COLOURS = (BLUE, ORANGE, GREEN, RED, BLACK, GREY)
"""Colours of the domains, in their order; they begin again after the last."""


def draw_forgetting(domains: Sequence[Forgetting]) -> bytes:
    """Draw forgetting as PNG; see `build_forgetting_figure`."""
    return render(build_forgetting_figure(domains))


def build_forgetting_figure(domains: Sequence[Forgetting]) -> Figure:
    """Return a figure with a panel for each unit kind and a line for each domain.

    Args:
        domains: Forgetting in one domain or in several; bands are the range over seeds.
    """
    figure = create_figure(9.6, 4.2)
    panels = [figure.add_axes((0.075 + 0.48 * n, 0.17, 0.4, 0.66)) for n in range(2)]
    for panel, kind in zip(panels, UnitKind, strict=True):
        _draw_kind(panel, kind, domains)
    panels[0].legend(fontsize=9, frameon=False, loc="best")
    objectives = ", ".join(sorted({found.pretrained_objective for found in domains}))
    figure.suptitle(
        "Pre-trained and fine-tuned importance before pruning (1 = fine-tuning has changed "
        f"nothing); pre-trained by {objectives}",
        fontsize=10,
        x=0.02,
        ha="left",
    )
    return figure


def _draw_kind(axes: Axes, kind: UnitKind, domains: Sequence[Forgetting]) -> None:
    style_axes(axes, f"{kind}s".capitalize(), "layer", "rank correlation (Spearman's ρ)")
    axes.axhline(0.0, color=GREY, linewidth=1.0, linestyle=":")
    for number, found in enumerate(domains):
        colour = COLOURS[number % len(COLOURS)]
        mean = found.mean(kind)
        layers = np.arange(len(mean))
        low, high = found.range(kind)
        axes.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)
        count = f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
        axes.plot(layers, mean, "-o", color=colour, ms=4, label=f"{found.domain}, {count}")
    num_layers = max(len(found.mean(kind)) for found in domains)
    axes.set_xlim(-0.5, num_layers - 0.5)
    axes.set_ylim(-1.05, 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.grid(axis="y", color=PALE_GREY, linewidth=0.6)
