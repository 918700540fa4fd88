"""The figure of one level: what the heads were worth to each source, and what was removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from distprune.core.importance_scores import Importance
from distprune.core.mask import BoolArray, Mask
from distprune.core.units import UnitKind
from distprune.report.canvas import (
    BLUE,
    GREY,
    ORANGE,
    PALE_GREY,
    create_figure,
    render,
)

FATES = {
    "kept": BLUE,
    "removed at this level": ORANGE,
    "removed before": PALE_GREY,
}
"""What can have become of a unit, in the order of `classify_units`, and its colour."""

LAYER_AXIS = "layer (0 = input)"

LOOK: dict[str, Any] = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}
"""How units are drawn: one rectangle each, layer 0 at the bottom."""

LEFT, GAP, MARGIN = 0.75, 0.3, 0.2
"""Inches left of the panels, between them, and beside the title."""


def draw_importance(
    sources: Mapping[str, Importance | None],
    mixed: Importance,
    kept_before: Mask,
    kept_after: Mask,
    title: str,
) -> bytes:
    """Draw the figure of one level as PNG; for the arguments see `build_importance_figure`."""
    return render(build_importance_figure(sources, mixed, kept_before, kept_after, title))


def build_importance_figure(
    sources: Mapping[str, Importance | None],
    mixed: Importance,
    kept_before: Mask,
    kept_after: Mask,
    title: str,
) -> Figure:
    """Return a figure with a panel of head scores per source and one of their mix, and fates below.

    Args:
        sources: Importance by the source's name, normalised per layer, higher = keep; None where
            the source takes no part.
        mixed: The importance that selected the units, higher = keep.
        kept_before: Units that were live when the scores were taken.
        kept_after: Units that the level keeps.
        title: What the figure is about.
    """
    live = kept_before[UnitKind.HEAD]
    page = Page.fit(len(sources) + 1, *live.shape)
    page.figure.suptitle(
        title, fontsize=11, x=MARGIN / page.width, y=1 - 0.12 / page.height, ha="left", va="top"
    )
    for column, (name, importance) in enumerate({**sources, "mixed": mixed}.items()):
        _draw_scores(page, column, name, importance, live)
    _draw_fates(page.add_panel(1, 0), live, kept_after[UnitKind.HEAD])
    _draw_neurons(page.add_panel(1, 1), kept_before[UnitKind.NEURON], kept_after[UnitKind.NEURON])
    page.add_legend(FATES)
    return page.figure


@dataclass(frozen=True)
class Page:
    """Two rows of panels, one line per layer; measures in inches.

    Attributes:
        figure: What is drawn on.
        columns: Panels of the upper row; the lower one has two and the legend.
        num_layers: Lines of a panel.
        panel: Width and height of a panel.
    """

    figure: Figure
    columns: int
    num_layers: int
    panel: tuple[float, float]

    @classmethod
    def fit(cls, columns: int, num_layers: int, num_heads: int) -> Page:
        """Return a page whose panels have room for these counts."""
        columns = max(columns, 3)
        panel = min(3.0, max(2.3, 0.17 * num_heads)), max(1.3, 0.16 * num_layers)
        width = LEFT + columns * (panel[0] + GAP)
        return cls(create_figure(width, 2 * panel[1] + 3.0), columns, num_layers, panel)

    @property
    def width(self) -> float:
        """Width of the page."""
        return float(self.figure.get_figwidth())

    @property
    def height(self) -> float:
        """Height of the page."""
        return float(self.figure.get_figheight())

    def add_panel(self, row: int, column: int) -> Axes:
        """Add axes with a line per layer; row 0 is the upper one."""
        bottom = 0.55 if row == 1 else self.panel[1] + 2.05
        axes = self.add_axes(column, bottom, self.panel[1])
        axes.set_ylim(-0.5, self.num_layers - 0.5)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
        axes.tick_params(labelsize=9, labelleft=column == 0)
        axes.set_ylabel(LAYER_AXIS if column == 0 else "", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        return axes

    def add_axes(self, column: int, bottom: float, height: float) -> Axes:
        """Add axes as wide as a panel."""
        left = LEFT + column * (self.panel[0] + GAP)
        return self.figure.add_axes(
            (
                left / self.width,
                bottom / self.height,
                self.panel[0] / self.width,
                height / self.height,
            )
        )

    def add_legend(self, colours: Mapping[str, str]) -> None:
        """Explain colours, to the right of the lower row."""
        left = LEFT + 2 * (self.panel[0] + GAP)
        self.figure.legend(
            handles=[Patch(facecolor=colour, label=name) for name, colour in colours.items()],
            loc="upper left",
            bbox_to_anchor=(left / self.width, (0.6 + self.panel[1]) / self.height),
            fontsize=10,
            frameon=False,
        )


def classify_units(kept_before: BoolArray, kept_after: BoolArray) -> NDArray[np.int64]:
    """Return [layer, unit]: 0 = kept, 1 = removed at this level, 2 = removed before."""
    return np.where(kept_after, 0, np.where(kept_before, 1, 2)).astype(np.int64)


def _draw_scores(
    page: Page, column: int, name: str, importance: Importance | None, live: BoolArray
) -> None:
    axes = page.add_panel(0, column)
    _name_heads(axes, name)
    if importance is None:
        axes.set_xlim(-0.5, live.shape[1] - 0.5)
        middle = live.shape[1] / 2 - 0.5, live.shape[0] / 2 - 0.5
        axes.text(*middle, "takes no part", ha="center", va="center", color=GREY, fontsize=10)
        return
    scores = np.ma.masked_array(importance[UnitKind.HEAD], mask=~live)
    axes.set_facecolor(PALE_GREY)
    image = axes.imshow(scores, cmap="viridis", vmin=0.0, **LOOK)
    scale = page.add_axes(column, page.panel[1] + 1.4, 0.1)
    page.figure.colorbar(image, cax=scale, orientation="horizontal")
    scale.tick_params(labelsize=9, length=2, pad=1)
    scale.xaxis.set_major_locator(MaxNLocator(nbins=4))


def _draw_fates(axes: Axes, before: BoolArray, after: BoolArray) -> None:
    _name_heads(axes, f"{int(after.sum())} of {after.size} heads kept")
    colours = ListedColormap(list(FATES.values()))
    axes.imshow(classify_units(before, after), cmap=colours, vmin=-0.5, vmax=2.5, **LOOK)


def _name_heads(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("head", fontsize=10, labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _draw_neurons(axes: Axes, before: BoolArray, after: BoolArray) -> None:
    axes.set_title(f"{int(after.sum())} of {after.size} neurons kept", fontsize=11, loc="left")
    axes.set_xlabel("neurons per layer", fontsize=10, labelpad=1)
    layers = np.arange(len(after))
    kept, live, width = after.sum(axis=1), before.sum(axis=1), after.shape[1]
    bars = zip(
        FATES.values(), (kept, live - kept, width - live), (0 * kept, kept, live), strict=True
    )
    for colour, lengths, starts in bars:
        axes.barh(layers, lengths, left=starts, color=colour, height=0.8)
    axes.set_xlim(0, width)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
