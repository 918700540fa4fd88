"""The figure of a level: its values before they are drawn, and the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.report.importance_figure import (
    FATES,
    build_importance_figure,
    classify_units,
    draw_importance,
)
from tests.report.pictures import read_size

BEFORE = Mask(
    {
        UnitKind.HEAD: np.array([[True, True, False], [True, True, True]]),
        UnitKind.NEURON: np.array([[True] * 4, [True, True, False, False]]),
    }
)
AFTER = Mask(
    {
        UnitKind.HEAD: np.array([[True, False, False], [False, True, True]]),
        UnitKind.NEURON: np.array([[True, True, True, False], [False] * 4]),
    }
)
SHAPES = {kind: BEFORE[kind].shape for kind in UnitKind}


def make_importance(seed: int) -> Importance:
    generator = np.random.default_rng(seed)
    return Importance({kind: generator.random(SHAPES[kind]) for kind in UnitKind})


def build(**sources: Importance | None) -> Figure:
    return build_importance_figure(sources, make_importance(9), BEFORE, AFTER, "Trial 7, level 3")


def panel(figure: Figure, title: str):
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left") == title]
    return axes


def test_head_scores_reach_their_panels() -> None:
    pretrained, finetuned = make_importance(0), make_importance(1)
    figure = build(pretrained=pretrained, finetuned=finetuned)
    for name, source in (
        ("pretrained", pretrained),
        ("finetuned", finetuned),
        ("mixed", make_importance(9)),
    ):
        (image,) = panel(figure, name).get_images()
        shown = image.get_array()
        np.testing.assert_array_equal(shown.mask, ~BEFORE[UnitKind.HEAD])
        live = BEFORE[UnitKind.HEAD]
        np.testing.assert_array_equal(shown.data[live], source[UnitKind.HEAD][live])
        assert image.origin == "lower"


def test_fates_of_heads_are_shown() -> None:
    (image,) = panel(build(finetuned=make_importance(1)), "3 of 6 heads kept").get_images()
    np.testing.assert_array_equal(image.get_array(), [[0, 1, 2], [1, 0, 0]])
    legend = build().legends[0]
    assert [text.get_text() for text in legend.get_texts()] == list(FATES)


def test_neurons_per_layer_are_shown() -> None:
    axes = panel(build(), "3 of 8 neurons kept")
    bars = [[(bar.get_x(), bar.get_width()) for bar in group] for group in axes.containers]
    assert bars == [[(0, 3), (0, 0)], [(3, 1), (0, 2)], [(4, 0), (2, 2)]]


def test_source_that_takes_no_part_is_named() -> None:
    axes = panel(build(pretrained=None, finetuned=make_importance(1)), "pretrained")
    assert not axes.get_images()
    assert [text.get_text() for text in axes.texts] == ["takes no part"]


def test_axes_have_names() -> None:
    figure = build(pretrained=make_importance(0), finetuned=make_importance(1))
    assert panel(figure, "pretrained").get_xlabel() == "head"
    assert panel(figure, "pretrained").get_ylabel() == "layer (0 = input)"
    assert panel(figure, "3 of 8 neurons kept").get_xlabel() == "neurons per layer"
    assert figure.get_suptitle() == "Trial 7, level 3"


@given(before=st.lists(st.booleans(), min_size=1, max_size=9), data=st.data())
def test_every_unit_has_one_fate(before: list[bool], data: st.DataObject) -> None:
    kept_before = np.array([before])
    kept_after = kept_before & data.draw(
        st.lists(st.booleans(), min_size=len(before), max_size=len(before)).map(np.array)
    )
    fates = classify_units(kept_before, kept_after)
    assert (fates == 0).sum() == kept_after.sum()
    assert (fates == 1).sum() == kept_before.sum() - kept_after.sum()
    assert (fates == 2).sum() == (~kept_before).sum()


@pytest.mark.parametrize("num_layers", [1, 12])
def test_picture_grows_with_the_layers(num_layers: int) -> None:
    mask = Mask({kind: np.ones((num_layers, 12), dtype=np.bool_) for kind in UnitKind})
    scores = Importance({kind: np.ones((num_layers, 12)) for kind in UnitKind})
    png = draw_importance({"a": scores, "b": scores}, scores, mask, mask, "title")
    width, height = read_size(png)
    assert 600 < width < 1200
    assert height == (560 if num_layers == 1 else 684)


def test_mask_without_units() -> None:
    empty = Mask({kind: np.zeros(SHAPES[kind], dtype=np.bool_) for kind in UnitKind})
    scores = Importance({kind: np.zeros(SHAPES[kind]) for kind in UnitKind})
    read_size(draw_importance({"a": scores}, scores, empty, empty, "nothing left"))
