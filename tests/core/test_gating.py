"""Gates change the output, follow the mask, and are gone after the block."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import distprune
from distprune.core.gating import apply_gates
from distprune.core.mask import Mask
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import MaskError
from tests.core.mask_strategies import make_mask
from tests.core.zeroing import zero_units
from tests.model_families import (
    ATTENTIONS,
    CONFIGS,
    SHAPE,
    build_classifier,
    compute_logits,
    sample_batch,
)

DENSE = Mask.dense(SHAPE)
every_model = pytest.mark.parametrize(
    ("family", "attention"), list(itertools.product(CONFIGS, ATTENTIONS))
)


def mask_without(kind: UnitKind) -> Mask:
    """Remove all units of `kind`, keep all of the other."""
    return Mask({each: DENSE[each] & (each is not kind) for each in UnitKind})


def count_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


@every_model
@pytest.mark.parametrize("kind", UnitKind)
def test_all_zero_gate_changes_the_logits(family: str, attention: str, kind: UnitKind) -> None:
    model, batch = build_classifier(family, attention), sample_batch(family)
    dense = compute_logits(model, batch)
    with mask_without(kind).gate(model):
        gated = compute_logits(model, batch)
    assert (gated - dense).abs().max() > 1e-2


@every_model
@pytest.mark.parametrize("kind", UnitKind)
def test_every_single_unit_changes_the_logits(family: str, attention: str, kind: UnitKind) -> None:
    model, batch = build_classifier(family, attention), sample_batch(family)
    dense = compute_logits(model, batch)
    for layer, unit in np.ndindex(DENSE[kind].shape):
        kept = {each: DENSE[each].copy() for each in UnitKind}
        kept[kind][layer, unit] = False
        mask = Mask(kept)
        with mask.gate(model):
            gated = compute_logits(model, batch)
        assert not torch.equal(gated, dense)
        expected = compute_logits(zero_units(model, mask), batch)
        torch.testing.assert_close(gated, expected, rtol=1e-5, atol=1e-5)


@every_model
def test_hooks_are_gone_after_an_exception(family: str, attention: str) -> None:
    model, batch = build_classifier(family, attention), sample_batch(family)
    dense = compute_logits(model, batch)

    def fail_inside() -> None:
        with mask_without(UnitKind.HEAD).gate(model):
            assert count_hooks(model) == 2 * SHAPE.num_layers
            raise RuntimeError("inside the block")

    with pytest.raises(RuntimeError, match="inside the block"):
        fail_inside()
    assert count_hooks(model) == 0
    assert torch.equal(compute_logits(model, batch), dense)


def test_hooks_are_gone_when_the_gates_do_not_fit() -> None:
    model = build_classifier("bert")
    too_few = {UnitKind.HEAD: [torch.ones(SHAPE.num_heads)]}
    with pytest.raises(ValueError, match="shorter"), apply_gates(model, too_few):
        pass
    assert count_hooks(model) == 0


def test_gates_nest() -> None:
    model, batch = build_classifier("bert"), sample_batch("bert")
    heads, neurons = mask_without(UnitKind.HEAD), mask_without(UnitKind.NEURON)
    nothing = make_mask(~DENSE["head"], ~DENSE["neuron"])
    with heads.gate(model), neurons.gate(model):
        nested = compute_logits(model, batch)
    with nothing.gate(model):
        assert torch.equal(compute_logits(model, batch), nested)


def test_gate_per_example_equals_examples_alone() -> None:
    model, batch = build_classifier("distilbert"), sample_batch("distilbert")
    generator = torch.Generator().manual_seed(3)
    gates = [torch.rand((4, 1, SHAPE.num_heads), generator=generator) for _ in range(3)]
    with apply_gates(model, {UnitKind.HEAD: gates}):
        together = compute_logits(model, batch)
    for row in range(4):
        alone = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        with apply_gates(model, {UnitKind.HEAD: [layer[row] for layer in gates]}):
            torch.testing.assert_close(compute_logits(model, alone)[0], together[row])


def test_mask_of_another_shape_is_refused() -> None:
    other = Mask.dense(EncoderShape(2, 4, 20, 24, 6))
    with (
        pytest.raises(MaskError, match="2 layers of 4 heads"),
        other.gate(build_classifier("bert")),
    ):
        pass


def test_head_mask_is_used_nowhere() -> None:
    # transformers 5 accepts the argument and ignores it.
    package = Path(distprune.__file__).parent
    files = sorted(package.rglob("*.py"))
    assert package / "core" / "gating.py" in files
    found = [
        f"{path.name}:{node.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.keyword) and node.arg == "head_mask")
        or (isinstance(node, ast.Constant) and node.value == "head_mask")
    ]
    assert found == []
