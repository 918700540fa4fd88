"""Costs against the known figures of BERT-base; sparsities say of what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.cost import CostKind, encoder_cost, measure_sparsities, unit_cost
from distprune.core.mask import Mask
from distprune.core.units import EncoderShape, UnitKind
from tests.core.mask_strategies import make_mask, masks, shapes

BERT_BASE = EncoderShape(
    num_layers=12, num_heads=12, num_neurons=3072, hidden_size=768, head_size=64
)
NUM_TOKENS = 100
MACS_PER_LAYER = 4 * NUM_TOKENS * 768**2 + 2 * NUM_TOKENS**2 * 768 + 2 * NUM_TOKENS * 768 * 3072
"""Query, key, value, output; scores and context; both FFN maps."""


def test_bert_base_encoder() -> None:
    cost = encoder_cost(BERT_BASE, Mask.dense(BERT_BASE), NUM_TOKENS)
    assert cost.parameters == 85_054_464
    assert isinstance(cost.parameters, int)
    assert cost.macs == 12 * MACS_PER_LAYER
    assert cost.num_tokens == NUM_TOKENS


def test_bert_base_units() -> None:
    parameters, macs = CostKind.PARAMETERS, CostKind.MACS
    assert unit_cost(UnitKind.HEAD, BERT_BASE, parameters, 1) == 4 * 768 * 64 + 3 * 64
    assert unit_cost(UnitKind.NEURON, BERT_BASE, parameters, 1) == 2 * 768 + 1
    assert unit_cost(UnitKind.HEAD, BERT_BASE, macs, 10) == 40 * 768 * 64 + 200 * 64
    assert unit_cost(UnitKind.NEURON, BERT_BASE, macs, 10) == 20 * 768


def test_empty_encoder_keeps_norms_and_output_biases() -> None:
    dense = Mask.dense(BERT_BASE)
    cost = encoder_cost(BERT_BASE, Mask({kind: ~dense[kind] for kind in UnitKind}), NUM_TOKENS)
    # Two output biases and two layer norms of two vectors each.
    assert cost.parameters == 12 * 6 * 768
    assert cost.macs == 0


@given(shape=shapes, data=st.data())
def test_one_unit_less_costs_one_unit_less(shape: EncoderShape, data: st.DataObject) -> None:
    mask = data.draw(masks(shape))
    before = encoder_cost(shape, mask, 7)
    for kind in UnitKind:
        for layer, unit in np.argwhere(mask[kind])[:1]:
            kept = {each: mask[each].copy() for each in UnitKind}
            kept[kind][layer, unit] = False
            after = encoder_cost(shape, Mask(kept), 7)
            parameters = unit_cost(kind, shape, CostKind.PARAMETERS, 7)
            assert before.parameters - after.parameters == parameters
            assert before.macs - after.macs == unit_cost(kind, shape, CostKind.MACS, 7)


def test_sparsities_by_hand() -> None:
    shape = EncoderShape(num_layers=2, num_heads=4, num_neurons=5, hidden_size=8, head_size=2)
    mask = make_mask([[1, 0, 0, 0], [1, 1, 1, 1]], [[0] * 5, [1] * 5])
    sparsities = measure_sparsities(shape, mask, num_tokens=3)
    assert sparsities.heads == 3 / 8
    assert sparsities.neurons == 5 / 10
    # Head 70 parameters, neuron 17, 6 * 8 in each layer stay.
    assert sparsities.encoder_parameters == pytest.approx(
        (3 * 70 + 5 * 17) / (8 * 70 + 10 * 17 + 96)
    )
    # Head 4 * 3 * 8 * 2 + 2 * 9 * 2 = 228 MACs, neuron 48.
    assert sparsities.macs == pytest.approx((3 * 228 + 5 * 48) / (8 * 228 + 10 * 48))


@given(shape=shapes)
def test_dense_is_sparsity_zero(shape: EncoderShape) -> None:
    sparsities = measure_sparsities(shape, Mask.dense(shape), num_tokens=3)
    assert (sparsities.heads, sparsities.neurons) == (0.0, 0.0)
    assert (sparsities.encoder_parameters, sparsities.macs) == (0.0, 0.0)
