"""The mixing path: against all crossings in exact arithmetic, and against `select` of `mix`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike, NDArray

from distprune.core import mixing_path
from distprune.core.importance_scores import Importance, Normalisation, normalise
from distprune.core.mask import Mask
from distprune.core.mixing import MixingOperator, mix
from distprune.core.mixing_path import MixingPath, find_obstacle, trace_mixing_path
from distprune.core.selection import Allocation, SelectionRule, num_removed, select
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import ConfigError, DivergedTrialError
from tests.core.mask_strategies import masks, shapes

BOTH = SelectionRule(tuple(UnitKind))
HEADS = SelectionRule((UnitKind.HEAD,))
ZERO, HALF, ONE = Fraction(0), Fraction(1, 2), Fraction(1)

VALUES = {
    "few integers": st.integers(0, 4).map(float),
    "integers": st.integers(0, 20).map(float),
    "floats": st.floats(0.0, 1e300),
    "smallest": st.integers(0, 20).map(lambda steps: steps * 5e-324),
    "nearly equal": st.integers(0, 3).map(lambda steps: 1.0 + steps * 2.0**-52),
}
"""Scores with ties, of all sizes, and such that float arithmetic cannot tell apart."""

State = tuple[EncoderShape, Importance, Importance, Mask]


@st.composite
def states(draw: st.DrawFn, *names: str) -> State:
    """Draw an encoder, a pre-trained and a fine-tuned source, and live units."""
    shape = draw(shapes)
    elements = VALUES[draw(st.sampled_from(names or tuple(VALUES)))]
    sources = [
        Importance(
            {
                kind: draw(
                    arrays(
                        np.float64,
                        (shape.num_layers, shape.units_per_layer(kind)),
                        elements=elements,
                    )
                )
                for kind in UnitKind
            }
        )
        for _ in range(2)
    ]
    return shape, *sources, draw(masks(shape))


percents = st.integers(0, 99).map(lambda percent: percent / 100)


def select_exactly(
    pretrained: Importance,
    finetuned: Importance,
    mask: Mask,
    sparsity: float,
    coefficient: Fraction,
) -> Mask:
    """Select as `select` does, with scores that are not rounded."""
    kept = {kind: mask[kind].copy() for kind in UnitKind}
    for kind in UnitKind:
        scores = sorted(
            (mix_exactly(pretrained, finetuned, kind, at, coefficient), at)
            for at in map(tuple, np.argwhere(mask[kind]).tolist())
        )
        removals = num_removed(sparsity, mask[kind].size) - int((~mask[kind]).sum())
        for _, at in scores[: max(removals, 0)]:
            kept[kind][at] = False
    return Mask(kept)


def mix_exactly(
    pretrained: Importance,
    finetuned: Importance,
    kind: UnitKind,
    at: tuple[int, ...],
    coefficient: Fraction,
) -> Fraction:
    share = coefficient * Fraction(float(pretrained[kind][at]))
    return share + (1 - coefficient) * Fraction(float(finetuned[kind][at]))


def list_crossings(pretrained: Importance, finetuned: Importance, mask: Mask) -> list[Fraction]:
    """List every λ inside (0, 1) at which any two live units have the same score."""
    crossings = set()
    for kind in UnitKind:
        live = [tuple(at) for at in np.argwhere(mask[kind]).tolist()]
        ends = [
            [mix_exactly(pretrained, finetuned, kind, at, end) for end in (ZERO, ONE)]
            for at in live
        ]
        for (low, high), (other_low, other_high) in combinations(ends, 2):
            slopes = (high - low) - (other_high - other_low)
            if slopes and 0 < (other_low - low) / slopes < 1:
                crossings.add((other_low - low) / slopes)
    return sorted(crossings)


@given(data=st.data(), sparsity=percents)
@pytest.mark.parametrize("values", VALUES)
def test_path_equals_brute_force(values: str, data: st.DataObject, sparsity: float) -> None:
    _, pretrained, finetuned, mask = data.draw(states(values))
    crossings = list_crossings(pretrained, finetuned, mask)
    middles = [(low + high) / 2 for low, high in pairwise([ZERO, *crossings, ONE])]
    expected: list[tuple[Fraction, Mask]] = []
    for begin, at in zip([ZERO, ZERO, *crossings, ONE], [ZERO, *middles, ONE], strict=True):
        chosen = select_exactly(pretrained, finetuned, mask, sparsity, at)
        if not expected or expected[-1][1] != chosen:
            expected.append((begin, chosen))
    path = trace_mixing_path(pretrained, finetuned, mask, sparsity, BOTH)
    assert [(low, found) for low, _, found in path.masks()] == expected
    assert path.breakpoints() == tuple(begin for begin, _ in expected[1:])
    assert path.num_masks() == len({found.digest for _, found in expected}) == len(expected)


@given(state=states(), sparsity=percents)
def test_parts_of_the_path_add_up(state: State, sparsity: float) -> None:
    _, pretrained, finetuned, mask = state
    path = trace_mixing_path(pretrained, finetuned, mask, sparsity, BOTH)
    found = [each for _, _, each in path.masks()]
    for kind in UnitKind:
        assert path.num_masks(kind) == len({each[kind].tobytes() for each in found})
        alone = trace_mixing_path(pretrained, finetuned, mask, sparsity, SelectionRule((kind,)))
        assert alone.breakpoints() == path.breakpoints(kind)
    together = {*path.breakpoints(UnitKind.HEAD), *path.breakpoints(UnitKind.NEURON)}
    assert path.breakpoints() == tuple(sorted(together))


@given(state=states(), sparsity=percents)
def test_a_pair_changes_hands_at_most_once(state: State, sparsity: float) -> None:
    _, pretrained, finetuned, mask = state
    path = trace_mixing_path(pretrained, finetuned, mask, sparsity, BOTH)
    found = [each for _, _, each in path.masks()]
    for kind in UnitKind:
        kept = np.array([each[kind][mask[kind]] for each in found], dtype=np.int8)
        for first, second in combinations(kept.T, 2):
            order = (first - second)[first != second]
            assert (order[1:] != order[:-1]).sum() <= 1


@settings(max_examples=15)
@given(state=states(), sparsity=percents)
@pytest.mark.parametrize("coefficient", [0.0, 1.0])
@pytest.mark.parametrize("normalisation", Normalisation)
def test_ends_are_what_the_method_selects(
    normalisation: Normalisation, coefficient: float, state: State, sparsity: float
) -> None:
    shape, pretrained, finetuned, mask = state
    plain = [
        Importance({kind: np.minimum(source[kind], 1e100) for kind in UnitKind})
        for source in (pretrained, finetuned)
    ]
    path = trace_mixing_path(
        *(normalise(source, mask, normalisation) for source in plain), mask, sparsity, BOTH
    )
    mixed = mix(*plain, mask, MixingOperator.CONVEX, coefficient, normalisation)
    assert path.mask_at(coefficient) == select(mixed, mask, shape, sparsity, BOTH)


def make_importance(
    shape: EncoderShape, seed: int, spread: float = 1.0, decimals: int | None = None
) -> Importance:
    """Make scores as models have them: of many sizes, and float32."""
    generator = np.random.default_rng(seed)
    scores = {}
    for kind in UnitKind:
        size = shape.num_layers, shape.units_per_layer(kind)
        drawn = generator.lognormal(0.0, spread, size).astype(np.float32).astype(np.float64)
        scores[kind] = drawn if decimals is None else drawn.round(decimals)
    return Importance(scores)


def assert_scan_agrees(
    path: MixingPath,
    sources: Sequence[Importance],
    mask: Mask,
    shape: EncoderShape,
    sparsity: float,
    coefficients: Sequence[float] | NDArray[np.float64],
    normalisation: Normalisation,
) -> int:
    """Compare with `select` of `mix` wherever no breakpoint is near; return at how many λ."""
    breakpoints = np.array([float(at) for at in path.breakpoints()])
    compared = 0
    for coefficient in map(float, coefficients):
        is_end = coefficient in (0.0, 1.0)
        if not is_end and np.abs(breakpoints - coefficient).min(initial=1.0) < 1e-9:
            continue
        mixed = mix(*sources, mask, MixingOperator.CONVEX, coefficient, normalisation)
        assert path.mask_at(coefficient) == select(mixed, mask, shape, sparsity, BOTH)
        compared += 1
    return compared


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("normalisation", [Normalisation.L2, Normalisation.MAX])
def test_dense_scan(normalisation: Normalisation, sparsity: float) -> None:
    shape = EncoderShape(num_layers=4, num_heads=12, num_neurons=60, hidden_size=96, head_size=8)
    sources = make_importance(shape, 1), make_importance(shape, 2)
    generator = np.random.default_rng(3)
    mask = Mask({kind: generator.random(sources[0][kind].shape) > 0.1 for kind in UnitKind})
    path = trace_mixing_path(
        *(normalise(source, mask, normalisation) for source in sources), mask, sparsity, BOTH
    )
    assert path.num_masks() > 20
    scan = np.linspace(0.0, 1.0, 1501)
    compared = assert_scan_agrees(path, sources, mask, shape, sparsity, scan, normalisation)
    assert compared > 1490
    seen = {path.mask_at(float(at)).digest for at in scan}
    assert 0.8 * path.num_masks() < len(seen) <= path.num_masks()


@pytest.mark.parametrize("decimals", [0, 1])
def test_dense_scan_with_ties(decimals: int) -> None:
    shape = EncoderShape(num_layers=4, num_heads=12, num_neurons=60, hidden_size=96, head_size=8)
    sources = [make_importance(shape, seed, decimals=decimals) for seed in (1, 2)]
    mask = Mask.dense(shape)
    path = trace_mixing_path(*sources, mask, 0.5, BOTH)
    scan = np.linspace(0.0, 1.0, 1001)
    compared = assert_scan_agrees(path, sources, mask, shape, 0.5, scan, Normalisation.NONE)
    assert compared > 900


def make_scores(heads: ArrayLike, neurons: ArrayLike = ((1.0,),)) -> Importance:
    return Importance({UnitKind.HEAD: np.array(heads), UnitKind.NEURON: np.array(neurons)})


def trace_heads(
    pretrained: ArrayLike, finetuned: ArrayLike, removals: int
) -> list[tuple[Fraction, Fraction, list[int]]]:
    """Trace one layer of heads; return (from λ, to λ, heads that are removed)."""
    sources = [make_scores([source]) for source in (pretrained, finetuned)]
    mask = Mask({kind: np.ones_like(sources[0][kind], dtype=np.bool_) for kind in UnitKind})
    path = trace_mixing_path(*sources, mask, removals / mask["head"].size, HEADS)
    return [
        (low, high, np.flatnonzero(~found["head"][0]).tolist()) for low, high, found in path.masks()
    ]


def test_two_heads_cross() -> None:
    # Scores over λ: 2 - 2 λ, 1 + 2 λ and 4 - 2 λ.
    quarter = Fraction(1, 4)
    assert trace_heads([0, 3, 2], [2, 1, 4], 1) == [(ZERO, quarter, [1]), (quarter, ONE, [0])]


def test_head_that_only_the_middle_removes() -> None:
    # 4 λ, 4 - 4 λ and 1.5: each is the lowest somewhere.
    low, high = Fraction(3, 8), Fraction(5, 8)
    expected = [(ZERO, low, [0]), (low, high, [2]), (high, ONE, [1])]
    assert trace_heads([4, 0, 1.5], [0, 4, 1.5], 1) == expected


def test_many_heads_cross_at_one_point() -> None:
    # 2 λ, 1 and 2 - 2 λ meet at λ = 1/2; what ties there would choose is no mask of the path.
    pretrained, finetuned = [2, 1, 0], [0, 1, 2]
    assert trace_heads(pretrained, finetuned, 1) == [(ZERO, HALF, [0]), (HALF, ONE, [2])]
    assert trace_heads(pretrained, finetuned, 2) == [(ZERO, HALF, [0, 1]), (HALF, ONE, [1, 2])]


def test_ties_at_the_ends() -> None:
    # At the tie itself the earlier head is removed, beside it the one whose score is lower there.
    one_sided = [3, 2, 1], [1, 1, 1]
    assert trace_heads(*one_sided, 1) == [(ZERO, ZERO, [0]), (ZERO, ONE, [2])]
    assert trace_heads(*one_sided[::-1], 1) == [(ZERO, ONE, [2]), (ONE, ONE, [0])]


def test_equal_heads_go_by_place() -> None:
    assert trace_heads([1, 1, 1, 2], [2, 2, 2, 1], 2) == [
        (ZERO, HALF, [0, 3]),
        (HALF, ONE, [0, 1]),
    ]
    assert trace_heads([1, 1, 1], [1, 1, 1], 2) == [(ZERO, ONE, [0, 1])]


@pytest.mark.parametrize("scale", [5e-324, 2.0**-1030, 2.0**1010])
def test_scale_changes_nothing(scale: float) -> None:
    # The smallest floats are rounded to whole steps: floats alone would choose other units.
    for seed in range(20):
        sources = np.random.default_rng(seed).integers(0, 20, (2, 40)).astype(np.float64)
        expected = trace_heads(*sources, 15)
        assert trace_heads(*(sources * scale), 15) == expected


def test_parallel_heads_never_cross() -> None:
    assert trace_heads([2, 3, 4], [1, 2, 3], 2) == [(ZERO, ONE, [0, 1])]


@pytest.mark.parametrize(("removals", "removed"), [(0, []), (2, [0, 1])])
def test_nothing_to_choose(removals: int, removed: list[int]) -> None:
    assert trace_heads([0, 1], [1, 0], removals) == [(ZERO, ONE, removed)]


def test_both_kinds_at_one_point_are_one_change() -> None:
    sources = make_scores([[1.0, 0.0]], [[0.0, 1.0]]), make_scores([[0.0, 1.0]], [[1.0, 0.0]])
    mask = Mask({kind: np.ones((1, 2), dtype=np.bool_) for kind in UnitKind})
    path = trace_mixing_path(*sources, mask, 0.5, BOTH)
    assert (path.num_masks(), path.num_masks(UnitKind.HEAD), path.num_masks(UnitKind.NEURON)) == (
        *(2, 2, 2),
    )
    assert path.breakpoints() == (HALF,)


def test_dead_units_count_and_do_not_come_back() -> None:
    sources = make_scores([[9, 1, 2, 3]]), make_scores([[9, 3, 2, 1]])
    before = Mask(
        {
            UnitKind.HEAD: np.array([[False, True, True, True]]),
            UnitKind.NEURON: np.ones((1, 1), np.bool_),
        }
    )
    path = trace_mixing_path(*sources, before, 0.5, HEADS)
    kept = [found["head"].tolist() for _, _, found in path.masks()]
    assert kept == [[[False, True, True, False]], [[False, False, True, True]]]
    assert trace_mixing_path(*sources, before, 0.25, HEADS).num_masks() == 1
    assert trace_mixing_path(*sources, before, 0.0, HEADS).start == before


def test_kinds_not_in_the_rule_are_kept() -> None:
    sources = make_scores([[1, 0]], [[1, 0]]), make_scores([[0, 1]], [[0, 1]])
    mask = Mask({kind: np.ones((1, 2), dtype=np.bool_) for kind in UnitKind})
    path = trace_mixing_path(*sources, mask, 0.5, HEADS)
    assert path.num_masks(UnitKind.NEURON) == 1
    assert path.start.num_kept("neuron") == 2


def test_places_on_the_path() -> None:
    sources = make_scores([[4, 0, 1.5]]), make_scores([[0, 4, 1.5]])
    mask = Mask({kind: np.ones_like(sources[0][kind], np.bool_) for kind in UnitKind})
    path = trace_mixing_path(*sources, mask, 1 / 3, HEADS)
    assert path.interval_at(0.0) == (ZERO, Fraction(3, 8))
    assert path.interval_at(0.5) == (Fraction(3, 8), Fraction(5, 8))
    assert path.interval_at(1.0) == (Fraction(5, 8), ONE)
    assert path.interval_at(0.5, UnitKind.NEURON) == (ZERO, ONE)
    assert path.mask_at(0.375) == path.mask_at(0.5) != path.mask_at(0.374)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"coefficient: .* must be in \[0, 1\]"):
            path.mask_at(wrong)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (SelectionRule(tuple(UnitKind), Allocation.JOINT_MACS), "allocation joint_macs has no"),
        (
            SelectionRule(tuple(UnitKind), min_per_layer={UnitKind.HEAD: 1}),
            r"min units per layer \{'head': 1\} has no mixing path",
        ),
    ],
)
def test_rules_without_a_path_are_refused(rule: SelectionRule, text: str) -> None:
    scores = make_scores([[1, 2]], [[1, 2]])
    mask = Mask({kind: np.ones((1, 2), dtype=np.bool_) for kind in UnitKind})
    assert find_obstacle(rule)
    with pytest.raises(ConfigError, match=text):
        trace_mixing_path(scores, scores, mask, 0.5, rule)


def test_floor_that_binds_nothing_is_no_obstacle() -> None:
    floors = {UnitKind.HEAD: 0, UnitKind.NEURON: 3}
    assert find_obstacle(SelectionRule((UnitKind.HEAD,), min_per_layer=floors)) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_score_that_is_not_finite(value: float) -> None:
    scores, broken = make_scores([[1, 2]]), make_scores([[1, value]])
    mask = Mask({kind: np.ones_like(scores[kind], np.bool_) for kind in UnitKind})
    for pair in ((scores, broken), (broken, scores)):
        with pytest.raises(DivergedTrialError, match="a score is not finite"):
            trace_mixing_path(*pair, mask, 0.5, HEADS)


MINILM = EncoderShape(num_layers=6, num_heads=12, num_neurons=1536, hidden_size=384, head_size=32)


@pytest.mark.parametrize("lines", [7, 10**9])
def test_blocks_change_nothing(lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = EncoderShape(num_layers=3, num_heads=12, num_neurons=200, hidden_size=96, head_size=8)
    sources = make_importance(shape, 1), make_importance(shape, 2)
    expected = trace_mixing_path(*sources, Mask.dense(shape), 0.4, BOTH)
    monkeypatch.setattr(mixing_path, "LINES_PER_BLOCK", lines)
    assert trace_mixing_path(*sources, Mask.dense(shape), 0.4, BOTH) == expected


def test_whole_model_takes_seconds() -> None:
    mask = Mask.dense(MINILM)
    sources = make_importance(MINILM, 1), make_importance(MINILM, 2)
    began = time.process_time()
    path = trace_mixing_path(
        *(normalise(source, mask, Normalisation.L2) for source in sources), mask, 0.5, BOTH
    )
    assert time.process_time() - began < 10
    assert path.num_masks(UnitKind.NEURON) > 2000
    scan = [0.0, *np.random.default_rng(0).random(100), 1.0]
    assert_scan_agrees(path, sources, mask, MINILM, 0.5, scan, Normalisation.L2)


@pytest.mark.parametrize("name", ["equal", "integers", "one point", "rounding", "zeros", "sizes"])
def test_whole_model_with_awkward_scores(name: str) -> None:
    generator = np.random.default_rng(0)
    size = MINILM.num_layers, MINILM.num_neurons
    some = generator.random(size).astype(np.float32).astype(np.float64)
    pretrained, finetuned = {
        "equal": (np.ones(size), np.ones(size)),
        "integers": (generator.integers(0, 50, size), generator.integers(0, 50, size)),
        "one point": (some, 1.0 - some),
        "rounding": (
            1 + 2.0**-52 * generator.integers(0, 20, size),
            1 - 2.0**-53 * generator.integers(0, 20, size),
        ),
        "zeros": (
            some * (generator.random(size) < 0.4),
            some.T.reshape(size) * (generator.random(size) < 0.4),
        ),
        "sizes": (
            10 ** generator.uniform(-300, 300, size),
            10 ** generator.uniform(-300, 300, size),
        ),
    }[name]
    heads = np.ones((MINILM.num_layers, MINILM.num_heads))
    sources = make_scores(heads, pretrained), make_scores(heads, finetuned)
    began = time.process_time()
    path = trace_mixing_path(*sources, Mask.dense(MINILM), 0.5, BOTH)
    assert time.process_time() - began < 30
    *_, (_, _, last) = path.masks()
    assert path.start == select(sources[1], Mask.dense(MINILM), MINILM, 0.5, BOTH)
    assert last == select(sources[0], Mask.dense(MINILM), MINILM, 0.5, BOTH)
    assert path.num_masks() == {"equal": 1, "one point": 2}.get(name, path.num_masks())
