"""The figure of a confirmation: what is drawn, and the picture."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from distprune.report.canvas import BLUE, GREY, RED
from distprune.report.confirmation_figure import (
    build_confirmation_figure,
    choose_colour,
    draw_confirmation,
    list_rows,
)
from tests.library.confirmations import make_arm, make_confirmation, make_difference, make_mask
from tests.report.pictures import read_size


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def points(axes: Axes) -> list[list[list[float]]]:
    return [line.get_xydata().tolist() for line in axes.get_lines()]


@pytest.fixture
def figure() -> Figure:
    return build_confirmation_figure(make_confirmation(masks=(make_mask(), make_mask())))


def test_rows() -> None:
    rows = list_rows(make_confirmation(masks=(make_mask(), make_mask())))
    names = [row.arm.name if row.arm else None for row in rows]
    assert names == [None, "best", "dense", "random", "lambda_0", "magnitude", "inverted"] * 2
    assert [row.place for row in rows] == list(range(14))


def test_every_seed_and_the_mean_are_shown(figure: Figure) -> None:
    drawn = points(figure.axes[0])
    assert [[0.80, 1], [0.81, 1], [0.82, 1]] in drawn
    assert [[pytest.approx(0.81), 1]] in drawn
    assert [[0.84, 1]] in drawn  # the study's own run on search
    assert [[0.82, 1]] in drawn  # and on report
    shown = texts(figure.axes[0])
    assert shown[:4] == ["30 and 50 % removed", "best", "dense", "random masks"]


def test_differences_are_in_points(figure: Figure) -> None:
    drawn = points(figure.axes[1])
    assert [[pytest.approx(1.5), 3], [pytest.approx(2.7), 3]] in drawn
    assert [[pytest.approx(2.1), 3]] in drawn
    axes = figure.axes[1]
    assert axes.get_xlabel() == "difference in points (> 0: the best mask is better)"
    assert "98.3 % intervals" in axes.get_title(loc="left")
    assert "same mask as the best" in texts(axes)


def test_errors_are_in_their_own_unit() -> None:
    confirmation = make_confirmation(metric="mean_squared_error", higher_is_better=False)
    figure = build_confirmation_figure(confirmation)
    assert "lower is better" in figure.axes[0].get_xlabel()
    assert figure.axes[1].get_xlabel().startswith("difference in mean_squared_error")
    assert [[pytest.approx(0.021), 3]] in points(figure.axes[1])


@pytest.mark.parametrize(
    ("low", "high", "colour"), [(0.1, 0.3, BLUE), (-0.3, -0.1, RED), (-0.1, 0.1, GREY)]
)
def test_colour_is_the_verdict(low: float, high: float, colour: str) -> None:
    arm = make_arm("random", 0.8, 0.8, difference=make_difference((low + high) / 2, low, high))
    assert same_color(choose_colour(arm), colour)


def test_picture_grows_with_its_rows() -> None:
    small = read_size(draw_confirmation(make_confirmation()))
    large = read_size(draw_confirmation(make_confirmation(masks=(make_mask(),) * 3)))
    assert small[0] == large[0]
    assert small[1] < large[1]
