"""Hypothesis strategies for masks and scores; emptied layers are as likely as mixed ones."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike, NDArray

from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.units import EncoderShape, UnitKind


def rows(num_units: int) -> st.SearchStrategy[NDArray[np.bool_]]:
    """Draw one layer: all kept, all removed, or any mixture."""
    return st.one_of(
        st.just(np.zeros(num_units, dtype=np.bool_)),
        st.just(np.ones(num_units, dtype=np.bool_)),
        arrays(np.bool_, num_units),
    )


@st.composite
def masks(draw: st.DrawFn, shape: EncoderShape) -> Mask:
    """Draw a mask of an encoder of this shape."""
    return Mask(
        {
            kind: np.stack(
                [draw(rows(shape.units_per_layer(kind))) for _ in range(shape.num_layers)]
            )
            for kind in UnitKind
        }
    )


def make_mask(heads: ArrayLike, neurons: ArrayLike) -> Mask:
    """Make a mask of anything like two arrays [layer, unit]; 1 = kept."""
    return Mask(
        {
            UnitKind.HEAD: np.array(heads, dtype=np.bool_),
            UnitKind.NEURON: np.array(neurons, dtype=np.bool_),
        }
    )


def narrow(mask: Mask, other: Mask) -> Mask:
    """Keep what both masks keep."""
    return Mask({kind: mask[kind] & other[kind] for kind in UnitKind})


shapes = st.builds(
    EncoderShape,
    num_layers=st.integers(1, 4),
    num_heads=st.integers(1, 6),
    num_neurons=st.integers(1, 9),
    hidden_size=st.sampled_from([8, 12]),
    head_size=st.sampled_from([2, 3]),
)
"""Small encoders of any layout; layers and heads mostly differ."""


@st.composite
def importances(draw: st.DrawFn, shape: EncoderShape, ties: bool = True) -> Importance:
    """Draw scores; with `ties` from few values, else all different."""
    scores = {}
    for kind in UnitKind:
        size = (shape.num_layers, shape.units_per_layer(kind))
        if ties:
            scores[kind] = draw(arrays(np.float64, size, elements=st.integers(0, 4).map(float)))
        else:
            order = draw(st.permutations(range(size[0] * size[1])))
            scores[kind] = (np.array(order, dtype=np.float64) + 1.0).reshape(size)
    return Importance(scores)


@st.composite
def pruning_states(draw: st.DrawFn, ties: bool = True) -> tuple[EncoderShape, Importance, Mask]:
    """Draw an encoder, scores of its units and the mask of the level before."""
    shape = draw(shapes)
    return shape, draw(importances(shape, ties)), draw(masks(shape))
