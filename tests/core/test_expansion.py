"""Expansion is the way back from compaction: under the gates nothing changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings

from distprune.core.compact_model import Compact
from distprune.core.expansion import expand
from distprune.core.gating import gate
from distprune.core.mask import Mask
from distprune.errors import MaskError
from tests.core.mask_strategies import make_mask, masks
from tests.model_families import CONFIGS, SHAPE, build_classifier, compute_logits, sample_batch

DENSE = Mask.dense(SHAPE)
NOTHING = make_mask(~DENSE["head"], ~DENSE["neuron"])


@pytest.mark.parametrize("family", CONFIGS)
@settings(max_examples=8)
@given(mask=masks(SHAPE))
@example(mask=DENSE)
@example(mask=NOTHING)
def test_gated_expansion_computes_what_the_compact_model_does(family: str, mask: Mask) -> None:
    compact, batch = mask.compact(build_classifier(family)), sample_batch(family)
    dense = expand(compact, mask)
    assert not isinstance(dense, Compact)
    with gate(dense, mask):
        gated = compute_logits(dense, batch)
    torch.testing.assert_close(gated, compute_logits(compact, batch), rtol=1e-5, atol=1e-5)
    again = mask.compact(dense)
    assert again.state_dict().keys() == compact.state_dict().keys()
    for name, tensor in compact.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_removed_units_show_without_the_gates() -> None:
    compact, batch = NOTHING.compact(build_classifier("bert")), sample_batch("bert")
    ungated = compute_logits(expand(compact, NOTHING), batch)
    assert (ungated - compute_logits(compact, batch)).abs().max() > 1e-3


def test_the_random_state_is_left_alone() -> None:
    compact = NOTHING.compact(build_classifier("bert"))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    expand(compact, NOTHING)
    assert torch.rand(1) == expected


def test_a_mask_of_another_model_is_refused() -> None:
    with pytest.raises(MaskError, match=r"keeps \(0, 0, 0\) heads per layer; the model has \(4"):
        expand(build_classifier("bert"), NOTHING)
