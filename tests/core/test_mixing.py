"""Mixing: λ at its ends is one source alone; unions and intersections against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distprune.core.importance_scores import Importance, Normalisation, normalise
from distprune.core.mask import Mask
from distprune.core.mixing import MixingOperator, mix, sources_needed
from distprune.core.selection import SelectionRule, select
from distprune.core.units import EncoderShape, UnitKind
from tests.core.mask_strategies import importances, make_mask, masks, shapes

WITH_COEFFICIENT = (
    MixingOperator.CONVEX,
    MixingOperator.GEOMETRIC,
    MixingOperator.RANK_AVERAGE,
)
FEW = settings(max_examples=15)
BOTH_KINDS = SelectionRule(tuple(UnitKind))


@st.composite
def sources(draw: st.DrawFn) -> tuple[EncoderShape, Importance, Importance, Mask]:
    """Draw an encoder, two sources with ties and zeros, and live units."""
    shape = draw(shapes)
    drawn = draw(importances(shape)), draw(importances(shape))
    factors = [draw(st.floats(1e-6, 1e6)) for _ in drawn]
    scaled = [
        Importance({kind: source[kind] * factor for kind in UnitKind})
        for source, factor in zip(drawn, factors, strict=True)
    ]
    return shape, scaled[0], scaled[1], draw(masks(shape))


Sources = tuple[EncoderShape, Importance, Importance, Mask]


def assert_equal(actual: Importance, expected: Importance) -> None:
    """Equal bit for bit."""
    for kind in UnitKind:
        assert actual[kind].tobytes() == expected[kind].tobytes()


@FEW
@given(drawn=sources())
@pytest.mark.parametrize("operator", WITH_COEFFICIENT)
@pytest.mark.parametrize("normalisation", Normalisation)
@pytest.mark.parametrize("coefficient", [0.0, 1.0])
def test_coefficient_at_its_ends_is_one_source(
    operator: MixingOperator, normalisation: Normalisation, coefficient: float, drawn: Sources
) -> None:
    _, pretrained, finetuned, mask = drawn
    expected = normalise(pretrained if coefficient else finetuned, mask, normalisation)
    both = mix(pretrained, finetuned, mask, operator, coefficient, normalisation)
    alone = mix(
        pretrained if coefficient else None,
        None if coefficient else finetuned,
        mask,
        operator,
        coefficient,
        normalisation,
    )
    assert_equal(both, expected)
    assert_equal(alone, expected)
    single = MixingOperator.PRETRAINED if coefficient else MixingOperator.FINETUNED
    assert_equal(mix(pretrained, finetuned, mask, single, 0.5, normalisation), expected)


@given(drawn=sources())
@pytest.mark.parametrize("operator", [MixingOperator.CONVEX, MixingOperator.GEOMETRIC])
@pytest.mark.parametrize("coefficient", [0.0, 1.0])
def test_the_formula_itself_ends_in_one_source(
    operator: MixingOperator, coefficient: float, drawn: Sources
) -> None:
    # λ so near its end that only the formula is left: the ranking is that of the source.
    _, pretrained, finetuned, mask = drawn
    near = abs(coefficient - 1e-300) if coefficient == 0.0 else 1.0 - 2**-53
    plain = Importance({kind: 1.0 + pretrained[kind] for kind in UnitKind})
    other = Importance({kind: 1.0 + finetuned[kind] for kind in UnitKind})
    mixed = mix(plain, other, mask, operator, near, Normalisation.NONE)
    expected = plain if coefficient else other
    for kind in UnitKind:
        live = mask[kind]
        np.testing.assert_allclose(mixed[kind][live], expected[kind][live], rtol=1e-9)


def mix_pair(operator: MixingOperator, coefficient: float) -> list[float]:
    """Mix two sources of two heads; the pre-trained one has (4, 1), the fine-tuned one (1, 16)."""
    pretrained = Importance({kind: np.array([[4.0, 1.0]]) for kind in UnitKind})
    finetuned = Importance({kind: np.array([[1.0, 16.0]]) for kind in UnitKind})
    mask = Mask({kind: np.ones((1, 2), np.bool_) for kind in UnitKind})
    mixed = mix(pretrained, finetuned, mask, operator, coefficient, Normalisation.NONE)
    return [float(score) for score in mixed["head"][0]]


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (MixingOperator.CONVEX, [0.25 * 4 + 0.75 * 1, 0.25 * 1 + 0.75 * 16]),
        (MixingOperator.GEOMETRIC, [4**0.25, 16**0.75]),
        (MixingOperator.RANK_AVERAGE, [0.25 * 1 + 0.75 * 0.5, 0.25 * 0.5 + 0.75 * 1]),
        (MixingOperator.MAX, [4, 16]),
        (MixingOperator.MIN, [1, 1]),
        (MixingOperator.MASK_UNION, [1, 1]),
        (MixingOperator.MASK_INTERSECTION, [0.5, 0.5]),
        (MixingOperator.PRETRAINED, [4, 1]),
        (MixingOperator.FINETUNED, [1, 16]),
    ],
)
def test_operators_by_hand(operator: MixingOperator, expected: list[float]) -> None:
    assert mix_pair(operator, 0.25) == pytest.approx(expected)


def test_ranks_are_over_live_units_alone() -> None:
    mask = make_mask([[1, 0], [1, 1]], [[1], [1]])
    pretrained = Importance(
        {UnitKind.HEAD: np.array([[0.0, 9.0], [0.0, 5.0]]), UnitKind.NEURON: np.ones((2, 1))}
    )
    finetuned = Importance(
        {UnitKind.HEAD: np.array([[7.0, 9.0], [3.0, 0.0]]), UnitKind.NEURON: np.ones((2, 1))}
    )
    mixed = mix(pretrained, finetuned, mask, MixingOperator.RANK_AVERAGE, 0.5, Normalisation.NONE)
    # Of three live heads, the ranks are (1, 2, 3) / 3 in one source and (3, 2, 1) / 3 in the other.
    np.testing.assert_allclose(mixed["head"], [[2 / 3, 0.0], [2 / 3, 2 / 3]])


def top(scores: NDArray[np.float64], kept: NDArray[np.bool_], count: int) -> set[tuple[int, int]]:
    """Take the `count` most important live units; ties keep the later layer and unit."""
    live = [(scores[layer, unit], layer, unit) for layer, unit in np.argwhere(kept).tolist()]
    ranked = sorted(live)
    return {(layer, unit) for _, layer, unit in ranked[len(ranked) - count :]}


@given(drawn=sources(), percent=st.integers(0, 99))
@pytest.mark.parametrize("operator", [MixingOperator.MASK_UNION, MixingOperator.MASK_INTERSECTION])
@pytest.mark.parametrize("normalisation", [Normalisation.L2, Normalisation.NONE])
def test_union_and_intersection_equal_brute_force(
    normalisation: Normalisation, operator: MixingOperator, drawn: Sources, percent: int
) -> None:
    shape, pretrained, finetuned, mask = drawn
    mixed = mix(pretrained, finetuned, mask, operator, 0.5, normalisation)
    result = select(mixed, mask, shape, percent / 100, BOTH_KINDS)
    first, second = (normalise(each, mask, normalisation) for each in (pretrained, finetuned))
    for kind in UnitKind:
        kept = {tuple(at) for at in np.argwhere(result[kind]).tolist()}
        pairs = [
            (top(first[kind], mask[kind], count), top(second[kind], mask[kind], count))
            for count in range(mask.num_kept(kind) + 1)
        ]
        combined = [
            one | two if operator is MixingOperator.MASK_UNION else one & two for one, two in pairs
        ]
        # Equal to the combination of this size, or, where a step of k skips it, between two.
        below = max((each for each in combined if len(each) <= len(kept)), key=len)
        above = min((each for each in combined if len(each) >= len(kept)), key=len)
        assert below <= kept <= above
        assert len(above) - len(below) <= 2


@FEW
@given(drawn=sources())
@pytest.mark.parametrize("operator", MixingOperator)
@pytest.mark.parametrize("normalisation", Normalisation)
def test_masked_units_get_zero_and_have_no_say(
    normalisation: Normalisation, operator: MixingOperator, drawn: Sources
) -> None:
    _, pretrained, finetuned, mask = drawn
    loud = [
        Importance({kind: np.where(mask[kind], each[kind], 1e6) for kind in UnitKind})
        for each in (pretrained, finetuned)
    ]
    mixed = mix(pretrained, finetuned, mask, operator, 0.5, normalisation)
    assert_equal(mix(loud[0], loud[1], mask, operator, 0.5, normalisation), mixed)
    assert mixed.is_finite
    assert all((mixed[kind][~mask[kind]] == 0.0).all() for kind in UnitKind)


@FEW
@given(drawn=sources(), data=st.data())
@pytest.mark.parametrize("operator", MixingOperator)
@pytest.mark.parametrize("normalisation", [Normalisation.L2, Normalisation.L1, Normalisation.MAX])
def test_scale_of_a_layer_has_no_effect(
    normalisation: Normalisation, operator: MixingOperator, drawn: Sources, data: st.DataObject
) -> None:
    shape, _, finetuned, mask = drawn
    pretrained = data.draw(importances(shape))
    # Whole scores and powers of two are exact in floats, so that ties stay ties.
    exponents = st.lists(st.integers(0, 40), min_size=shape.num_layers, max_size=shape.num_layers)
    factors = 2.0 ** np.array(data.draw(exponents), dtype=np.float64)[:, None]
    scaled = Importance({kind: pretrained[kind] * factors for kind in UnitKind})
    expected = mix(pretrained, finetuned, mask, operator, 0.3, normalisation)
    assert_equal(mix(scaled, finetuned, mask, operator, 0.3, normalisation), expected)


@pytest.mark.parametrize("normalisation", [Normalisation.L2, Normalisation.L1, Normalisation.MAX])
@pytest.mark.parametrize("operator", [MixingOperator.CONVEX, MixingOperator.GEOMETRIC])
def test_scale_of_tiny_gradients_has_no_effect(
    normalisation: Normalisation, operator: MixingOperator
) -> None:
    mask = Mask({kind: np.ones((1, 3), np.bool_) for kind in UnitKind})
    large = Importance({kind: np.array([[1.0, 2.0, 5.0]]) for kind in UnitKind})
    tiny = Importance({kind: 1e-12 * large[kind] for kind in UnitKind})
    other = Importance({kind: np.array([[7.0, 2.0, 1.0]]) for kind in UnitKind})
    for first, second in ((large, tiny), (tiny, large)):
        for kind in UnitKind:
            np.testing.assert_allclose(
                mix(first, other, mask, operator, 0.3, normalisation)[kind],
                mix(second, other, mask, operator, 0.3, normalisation)[kind],
                rtol=1e-6,
            )


def test_sources_needed() -> None:
    assert sources_needed(MixingOperator.FINETUNED, 0.5) == (False, True)
    assert sources_needed(MixingOperator.PRETRAINED, 0.5) == (True, False)
    for operator in WITH_COEFFICIENT:
        assert operator.takes_coefficient
        assert sources_needed(operator, 0.0) == (False, True)
        assert sources_needed(operator, 0.5) == (True, True)
        assert sources_needed(operator, 1.0) == (True, False)
    for operator in set(MixingOperator) - set(WITH_COEFFICIENT):
        assert not operator.takes_coefficient
    for operator in (MixingOperator.MAX, MixingOperator.MASK_UNION):
        assert sources_needed(operator, 0.0) == (True, True)


def test_missing_source_is_refused() -> None:
    shape = EncoderShape(1, 2, 2, 4, 2)
    mask = Mask.dense(shape)
    source = Importance({kind: np.ones((1, 2)) for kind in UnitKind})
    with pytest.raises(ValueError, match=r"convex at coefficient 0\.5 needs"):
        mix(None, source, mask, MixingOperator.CONVEX, 0.5, Normalisation.L2)
    with pytest.raises(ValueError, match="mask_union"):
        mix(source, None, mask, MixingOperator.MASK_UNION, 0.0, Normalisation.L2)
