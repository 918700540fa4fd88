"""The figure of forgetting: a line a domain, a panel a kind."""

from __future__ import annotations

import numpy as np

from distprune.report.forgetting_figure import build_forgetting_figure, draw_forgetting
from tests.library.test_forgetting import make_forgetting
from tests.report.pictures import read_size


def test_each_domain_has_a_line_in_each_panel() -> None:
    domains = [make_forgetting(), make_forgetting(domain="tweets", seeds=(1,))]
    figure = build_forgetting_figure(domains)
    for axes, name in zip(figure.axes, ("Heads", "Neurons"), strict=True):
        assert axes.get_title(loc="left") == name
        labels = [str(line.get_label()) for line in axes.get_lines()[1:]]
        assert labels == ["movies, 2 seeds", "tweets, 1 seed"]
        assert axes.get_ylabel() == "rank correlation (Spearman's ρ)"
        assert axes.get_xlabel() == "layer"
    heads = figure.axes[0].get_lines()[1].get_xydata()
    np.testing.assert_allclose(heads[0], [0.0, 0.4])
    assert "mlm" in figure.get_suptitle()


def test_picture() -> None:
    assert read_size(draw_forgetting([make_forgetting()])) == (960, 420)
