"""The figure of the mixing path: its rows and counts before they are drawn, and the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from numpy.typing import NDArray

from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.mixing_path import MixingPath, trace_mixing_path
from distprune.core.selection import SelectionRule
from distprune.core.units import UnitKind
from distprune.library.mixing_paths import PathSummary, TracedLevel, summarise_path
from distprune.report.canvas import BLUE, ORANGE
from distprune.report.mixing_figure import (
    MOST_HEADS,
    build_mixing_figure,
    count_kept_neurons,
    draw_mixing,
    find_changing_heads,
)
from tests.report.pictures import read_size

REASON = "only the fine-tuned importance was measured (λ = 0)"


def trace(heads: list[NDArray[np.float64]], neurons: list[NDArray[np.float64]]) -> MixingPath:
    """Trace half of the heads and neurons; sources are (pre-trained, fine-tuned)."""
    sources = [
        Importance({UnitKind.HEAD: head, UnitKind.NEURON: neuron})
        for head, neuron in zip(heads, neurons, strict=True)
    ]
    mask = Mask({kind: np.ones_like(sources[0][kind], dtype=np.bool_) for kind in UnitKind})
    return trace_mixing_path(*sources, mask, 0.5, SelectionRule(tuple(UnitKind)))


def trace_random(seed: int, layers: int = 3, heads: int = 4, neurons: int = 10) -> MixingPath:
    generator = np.random.default_rng(seed)
    return trace(
        [generator.random((layers, heads)) for _ in range(2)],
        [generator.random((layers, neurons)) for _ in range(2)],
    )


def make_level(milestone: float, path: MixingPath | None, coefficient: float = 0.4) -> TracedLevel:
    parts = None if path is None else summarise_path(path, coefficient)
    reason = REASON if path is None else None
    summary = PathSummary((milestone,), 4, 3, milestone, coefficient, parts, reason)
    return TracedLevel(summary, path)


# Scores of heads over λ: 4 λ, 4 - 4 λ, 2.5, 9; two of them are removed. Neurons: λ and 1 - λ.
SMALL = trace(
    [np.array([[4.0, 0.0], [2.5, 9.0]]), np.array([[0.0, 4.0], [2.5, 9.0]])],
    [np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]])],
)


def build(*levels: TracedLevel) -> Figure:
    figure = build_mixing_figure(levels)
    assert figure is not None
    return figure


def panel(figure: Figure, beginning: str) -> Axes:
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(beginning)]
    return axes


def test_heads_that_change_have_spans() -> None:
    rows = find_changing_heads(SMALL)
    assert [(row.layer, row.head, row.spans) for row in rows] == [
        (0, 0, ((0.0, 0.625, False), (0.625, 1.0, True))),
        (0, 1, ((0.0, 0.375, True), (0.375, 1.0, False))),
        (1, 0, ((0.0, 0.375, False), (0.375, 0.625, True), (0.625, 1.0, False))),
    ]


@given(seed=st.integers(0, 1000), coefficient=st.floats(0.001, 0.999))
def test_spans_and_counts_are_those_of_the_masks(seed: int, coefficient: float) -> None:
    path = trace_random(seed)
    mask = path.mask_at(coefficient)
    rows = {(row.layer, row.head): row.spans for row in find_changing_heads(path)}
    for at in np.ndindex(mask["head"].shape):
        spans = rows.get(at, ((0.0, 1.0, bool(path.start["head"][at])),))
        (is_kept,) = [kept for low, high, kept in spans if low <= coefficient < high]
        assert is_kept == mask["head"][at]
        assert [span[0] for span in spans[1:]] == [span[1] for span in spans[:-1]]
    edges, counts = count_kept_neurons(path)
    interval = int(np.searchsorted(edges, coefficient, side="right")) - 1
    np.testing.assert_array_equal(counts[:, interval], mask["neuron"].sum(axis=1))
    assert counts.shape == (3, len(edges) - 1) == (3, path.num_masks(UnitKind.NEURON))


def test_heads_reach_their_rows() -> None:
    axes = panel(build(make_level(0.5, SMALL)), "3 heads that λ decides about")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.0", "0.1", "1.0"]
    bars = [
        (
            round(bar.get_y() + bar.get_height() / 2),
            bar.get_x(),
            bar.get_width(),
            bar.get_facecolor(),
        )
        for group in axes.containers
        for bar in group
    ]
    rows = find_changing_heads(SMALL)
    expected = [
        (line, low, high - low, BLUE if is_kept else ORANGE)
        for line, row in enumerate(rows)
        for low, high, is_kept in row.spans
    ]
    assert [bar[:3] for bar in bars] == [each[:3] for each in expected]
    for bar, each in zip(bars, expected, strict=True):
        assert same_color(bar[3], each[3])
    assert axes.get_xlim() == (0.0, 1.0)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["kept", "removed", "λ of trial 4: 0.4"]


def test_used_coefficient_is_marked() -> None:
    figure = build(make_level(0.5, SMALL, coefficient=0.7))
    for axes in (panel(figure, "3 heads"), panel(figure, "Neurons kept")):
        assert {tuple(line.get_xdata()) for line in axes.get_lines()} == {(0.7, 0.7)}


def test_neurons_reach_their_panel() -> None:
    (mesh,) = panel(
        build(make_level(0.5, SMALL)), "Neurons kept of the 1 of each layer"
    ).collections
    np.testing.assert_array_equal(mesh.get_array(), [[0, 1], [1, 0]])
    np.testing.assert_array_equal(mesh.get_coordinates()[0, :, 0], [0.0, 0.5, 1.0])


def test_last_level_with_a_path_is_shown() -> None:
    levels = make_level(0.1, trace_random(1)), make_level(0.5, SMALL), make_level(0.7, None)
    title = build(*levels).get_suptitle()
    assert title.startswith("Best at 50 % removed (trial 4, level 3):\n")
    assert title.endswith("could have kept 3 different sets of heads and 4 different whole masks")
    assert build_mixing_figure(levels[2:]) is None
    assert draw_mixing([]) is None


def test_masks_of_every_level_are_counted() -> None:
    figure = build(make_level(0.1, None), make_level(0.5, SMALL))
    axes = panel(figure, "Different masks per level")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["10 %", "50 %"]
    assert [text.get_text() for text in axes.texts] == ["no path", "3", "2", "4"]
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["heads", "neurons", "whole masks"]
    lengths = [bar.get_x() + bar.get_width() for group in axes.containers for bar in group]
    assert lengths == pytest.approx([3, 2, 4])


def test_axes_have_names() -> None:
    figure = build(make_level(0.5, SMALL))
    named = {axes.get_title(loc="left"): axes for axes in figure.axes}
    for title, axes in named.items():
        if title:
            assert axes.get_xlabel()
    assert panel(figure, "3 heads").get_ylabel() == "layer.head"
    assert panel(figure, "Neurons").get_ylabel() == "layer"
    assert "0 = fine-tuned" in panel(figure, "Neurons").get_xlabel()


def test_too_many_heads_are_named_so() -> None:
    path = trace_random(0, layers=12, heads=12)
    rows = find_changing_heads(path)
    assert len(rows) > MOST_HEADS
    axes = panel(build(make_level(0.5, path)), f"{len(rows)} heads that λ decides about; shown are")
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert len(shown) == MOST_HEADS
    turns = {f"{row.layer}.{row.head}": len(row.spans) for row in rows}
    hidden = [turns[name] for name in turns if name not in shown]
    assert max(hidden) <= min(turns[name] for name in shown)
    assert shown == sorted(shown, key=lambda name: tuple(map(int, name.split("."))))


def test_heads_that_never_change() -> None:
    same = np.array([[1.0, 2.0]])
    axes = panel(build(make_level(0.5, trace([same, same], [same, same]))), "0 heads")
    assert [text.get_text() for text in axes.texts] == ["the same heads for every λ"]


@pytest.mark.parametrize(("layers", "num_levels"), [(1, 1), (12, 3), (2, 9)])
def test_picture(layers: int, num_levels: int) -> None:
    path = trace_random(0, layers=layers, heads=12)
    levels = [make_level(0.1 * number, path) for number in range(1, num_levels + 1)]
    png = draw_mixing(levels)
    assert png is not None
    assert png == draw_mixing(levels)
    width, height = read_size(png)
    assert width == 1150
    assert 500 < height < 1300
