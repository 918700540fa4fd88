"""The figure of stability: lines, chance, and which milestones are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from distprune.core.units import UnitKind
from distprune.library.stability import COEFFICIENTS, MaskAgreement, Stability
from distprune.report.stability_figure import (
    MOST_MILESTONES,
    build_stability_figure,
    choose_milestones,
    draw_stability,
)
from tests.report.pictures import read_size

SEEDS, LAYERS = (1, 2, 3), 4


def make_agreement(milestone: float) -> MaskAgreement:
    generator = np.random.default_rng(round(100 * milestone))
    return MaskAgreement(
        milestone=milestone,
        across_seeds={kind: generator.random((len(COEFFICIENTS), LAYERS)) for kind in UnitKind},
        across_coefficients={kind: generator.random((len(SEEDS), LAYERS)) for kind in UnitKind},
        chance=dict.fromkeys(UnitKind, 1.0 - milestone),
    )


@pytest.fixture
def stability() -> Stability:
    generator = np.random.default_rng(0)
    scores = {kind: generator.random((len(COEFFICIENTS), LAYERS)) for kind in UnitKind}
    scores[UnitKind.HEAD][:, 2] = np.nan
    masks = tuple(make_agreement(milestone) for milestone in (0.3, 0.5))
    return Stability(7, SEEDS, COEFFICIENTS, scores, masks)


def test_lines_are_means_and_dashes_are_chance(stability: Stability) -> None:
    figure = build_stability_figure(stability)
    assert len(figure.axes) == 6
    over_lambda, by_layer, scores = figure.axes[3:]
    first = stability.masks[0]
    line, chance = over_lambda.get_lines()[:2]
    np.testing.assert_allclose(line.get_xdata(), COEFFICIENTS)
    np.testing.assert_allclose(line.get_ydata(), first.across_seeds[UnitKind.NEURON].mean(axis=1))
    assert set(chance.get_ydata()) == {0.7}
    assert chance.get_linestyle() == "--"
    np.testing.assert_allclose(
        by_layer.get_lines()[0].get_ydata(), first.across_coefficients[UnitKind.NEURON].mean(axis=0)
    )
    np.testing.assert_allclose(
        scores.get_lines()[4].get_ydata(), stability.score_agreement[UnitKind.NEURON][4]
    )
    assert over_lambda.get_ylabel() == "Jaccard index (1 = same units)"
    assert over_lambda.get_title(loc="left").startswith("Neurons: masks of 3 seeds")


def test_some_of_many_milestones_are_drawn(stability: Stability) -> None:
    masks = [make_agreement(number / 20) for number in range(1, 13)]
    shown = choose_milestones(masks)
    assert len(shown) == MOST_MILESTONES
    assert (shown[0], shown[-1]) == (masks[0], masks[-1])
    assert choose_milestones(masks[:3]) == masks[:3]
    build_stability_figure(replace(stability, masks=tuple(masks)))


def test_picture(stability: Stability) -> None:
    assert read_size(draw_stability(stability)) == (1300, 740)
