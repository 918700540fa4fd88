"""The figure of a mask, or of what two masks have in common: heads as a map, neurons as bars."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.report.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PALE_GREY,
    create_figure,
    render,
    style_axes,
)

LAYER_AXIS = "layer (0 = input)"


def draw_mask(mask: Mask, title: str) -> bytes:
    """Draw as PNG which heads a mask keeps, and how many neurons of each layer."""
    return render(build_mask_figure([mask], [title], {"removed": PALE_GREY, "kept": BLUE}))


def draw_difference(first: Mask, second: Mask, names: tuple[str, str]) -> bytes:
    """Draw as PNG which units two masks keep, both or one of them."""
    colours = {
        "neither keeps it": PALE_GREY,
        f"only {names[0]}": BLUE,
        f"only {names[1]}": ORANGE,
        "both keep it": GREEN,
    }
    return render(build_mask_figure([first, second], list(names), colours))


def build_mask_figure(masks: list[Mask], names: list[str], colours: dict[str, str]) -> Figure:
    """Return a figure of one mask or of two.

    Args:
        masks: One mask, or two of the same counts.
        names: Their names.
        colours: What can be the case for a unit, and its colour: number = 1 x first + 2 x second.
    """
    layers, heads = masks[0][UnitKind.HEAD].shape
    figure = create_figure(max(7.0, 3.6 + 0.32 * heads), max(2.6, 1.4 + 0.3 * layers))
    left, right = figure.subplots(1, 2, width_ratios=(max(heads, 6), 8))
    _draw_heads(left, masks, list(colours.values()))
    _draw_neurons(right, masks, list(colours.values()))
    figure.suptitle(" and ".join(names), fontsize=11, x=0.02, ha="left")
    patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=patches, loc="lower left", ncols=4, fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 0.97))
    return figure


def _classify(masks: list[Mask], kind: UnitKind) -> NDArray[np.int_]:
    """Return for each unit 1 if the first mask keeps it, plus 2 if the second does."""
    fates = np.zeros(masks[0][kind].shape, dtype=np.int_)
    for place, mask in enumerate(masks):
        fates += mask[kind].astype(np.int_) << place
    return fates


def _draw_heads(axes: Axes, masks: list[Mask], colours: list[str]) -> None:
    axes.pcolormesh(
        _classify(masks, UnitKind.HEAD),
        cmap=ListedColormap(colours),
        vmin=0,
        vmax=len(colours) - 1,
        edgecolors="white",
        linewidth=1,
    )
    style_axes(axes, "heads", "head", LAYER_AXIS)
    _number_cells(axes, *masks[0][UnitKind.HEAD].shape)


def _number_cells(axes: Axes, layers: int, heads: int) -> None:
    """Put whole numbers at the middle of cells; few enough to be read."""
    step = max(1, heads // 12)
    axes.set_xticks(np.arange(0, heads, step) + 0.5, [str(n) for n in range(0, heads, step)])
    step = max(1, layers // 12)
    axes.set_yticks(np.arange(0, layers, step) + 0.5, [str(n) for n in range(0, layers, step)])


def _draw_neurons(axes: Axes, masks: list[Mask], colours: list[str]) -> None:
    fates = _classify(masks, UnitKind.NEURON)
    start = np.zeros(len(fates))
    for fate in (*range(1, len(colours)), 0):
        share = (fates == fate).mean(axis=1)
        axes.barh(np.arange(len(fates)), share, left=start, height=0.8, color=colours[fate])
        start += share
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, 1)
    style_axes(axes, "neurons", f"share of {fates.shape[1]} neurons", "")
