"""The figure of mask transfer: what its cells say before they are drawn, and the picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.patches import Rectangle

from distprune.report.transfer_figure import (
    CELL_WIDTH,
    build_transfer_figure,
    draw_transfer,
    measure_gains,
    name_unit,
)
from tests.library.transfer_tables import make_column, make_table
from tests.report.pictures import read_size


def test_colours_are_the_mean_gains() -> None:
    figure = build_transfer_figure(make_table())
    (image,) = figure.axes[0].get_images()
    assert image.get_array().tolist() == [
        pytest.approx([0.12, 0.1]),
        pytest.approx([0.0, 0.3]),
    ]
    low, high = image.get_clim()
    assert (low, high) == (pytest.approx(-0.3), pytest.approx(0.3))


def test_cells_have_gain_and_metric_with_spread() -> None:
    texts = [text.get_text() for text in build_transfer_figure(make_table()).axes[0].texts]
    assert texts[:2] == ["+0.120 ± 0.028", "accuracy 0.820 ± 0.028"]
    assert texts[2] == "+0.100 ± 0.283"
    assert len(texts) == 8


def test_own_task_is_framed() -> None:
    axes = build_transfer_figure(make_table()).axes[0]
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [frame.get_xy() for frame in frames] == [(-0.5, -0.5)]


def test_axes_and_colour_bar_are_labelled() -> None:
    table = make_table()
    figure = build_transfer_figure(table)
    axes, bar = figure.axes
    assert axes.get_xlabel() == "task that the mask is trained and measured on"
    assert [label.get_text().split("\n")[0] for label in axes.get_xticklabels()] == [
        "movies",
        "prices",
    ]
    assert "dense 0.910" in axes.get_xticklabels()[0].get_text()
    assert axes.get_yticklabels()[0].get_text() == "movies\n4 heads,\n20 neurons"
    assert bar.get_ylabel() == "gain over random\n(each task's own metric)"
    same = replace(table, columns=(make_column("movies"), make_column("prices")))
    assert name_unit(same) == "accuracy"
    assert "at 50 % removed" in figure.get_suptitle()


def test_masks_that_are_all_as_good_as_random() -> None:
    table = make_table()
    equal = tuple(replace(cell, metrics=cell.random) for cell in table.cells)
    assert measure_gains(replace(table, cells=equal)).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    width, height = read_size(draw_transfer(replace(table, cells=equal)))
    assert width > 2 * CELL_WIDTH * 100
    assert height > 200
