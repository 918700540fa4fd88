"""The figure of trade-offs: its panels before they are drawn, and the picture."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.axes import Axes

from distprune.library.constraints import Constraints
from distprune.report.pareto_figure import build_pareto_figure, draw_pareto
from tests.library.test_constraints import POINTS, make_point
from tests.report.pictures import read_size

WITHOUT_LATENCY = (make_point(1.0, 1.0, level=0), make_point(0.9, 0.5))


def lines(axes: Axes) -> dict[str, Any]:
    return {str(line.get_label()): line for line in axes.get_lines()}


def test_a_panel_for_each_cost() -> None:
    figure = build_pareto_figure(POINTS, Constraints())
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["latency", "parameters", "MACs"]
    assert figure.axes[0].get_xlabel() == "predicted latency (ms)"
    assert len(build_pareto_figure(WITHOUT_LATENCY, Constraints()).axes) == 2


def test_levels_and_front_are_where_they_belong() -> None:
    latency, _, macs = build_pareto_figure(POINTS, Constraints()).axes
    shown = lines(latency)
    assert shown["dense"].get_xydata().tolist() == [[20.0, 1.0]]
    assert shown["level"].get_xydata().tolist() == [[10.0, 0.97], [12.0, 0.96], [4.0, 0.8]]
    assert shown["front"].get_xydata().tolist() == [[4.0, 0.8], [10.0, 0.97], [20.0, 1.0]]
    assert lines(macs)["front"].get_xdata() == pytest.approx([30.0, 40.0, 60.0, 100.0])


def test_constraints_and_answer_are_marked() -> None:
    constraints = Constraints(max_latency=0.015, min_retention=0.95)
    figure = build_pareto_figure(POINTS, constraints, POINTS[1])
    latency, parameters, _ = figure.axes
    assert lines(latency)["answer"].get_xydata().tolist() == [[10.0, 0.97]]
    dashed = [line for line in latency.get_lines() if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in dashed] == [[15.0, 15.0], [0, 1]]
    assert sum(line.get_linestyle() == "--" for line in parameters.get_lines()) == 1
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named[-2:] == ["constraint", "answer"]


def test_picture() -> None:
    assert read_size(draw_pareto(POINTS, Constraints())) == (1320, 460)
    assert read_size(draw_pareto(WITHOUT_LATENCY, Constraints())) == (900, 460)


def test_study_without_levels() -> None:
    assert read_size(draw_pareto([], Constraints(max_macs=0.5))) == (900, 460)
