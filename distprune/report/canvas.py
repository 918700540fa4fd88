"""What all figures share: size, colours that colour-blind readers can tell apart, rendering.

Figures are made as objects and never through pyplot, so that they can be drawn on any thread.
"""

from __future__ import annotations

from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 100

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
RED = "#D55E00"
PALE_BLUE = "#A6CEE8"
GREY = "#8A8A8A"
PALE_GREY = "#E3E3E3"
BLACK = "#202020"


def create_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, with a canvas to draw it on."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, title: str, x_name: str, y_name: str) -> None:
    """Name the axes and take away the frame's upper and right side."""
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(x_name, fontsize=10)
    axes.set_ylabel(y_name, fontsize=10)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def render(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
