"""Anatomy finds the very modules that hold heads and neurons, and says what it does not know."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, DistilBertModel, GPT2Config

from distprune.core.anatomy import describe_anatomy
from distprune.core.families import FAMILIES, find_family
from distprune.core.units import UnitKind
from distprune.errors import UnsupportedModelError
from tests.core.mask_strategies import make_mask
from tests.core.zeroing import LAYERS, OUTPUTS
from tests.model_families import CONFIGS, SHAPE, build_classifier, build_config, build_masked_lm


def test_every_family_is_tested() -> None:
    assert set(CONFIGS) == set(FAMILIES)


@pytest.mark.parametrize("family", CONFIGS)
def test_counts_come_from_the_model(family: str) -> None:
    for model in (build_classifier(family), build_masked_lm(family)):
        anatomy = describe_anatomy(model)
        assert anatomy.shape() == SHAPE
        assert anatomy.counts(UnitKind.HEAD) == (SHAPE.num_heads,) * SHAPE.num_layers
        assert anatomy.counts(UnitKind.NEURON) == (SHAPE.num_neurons,) * SHAPE.num_layers


@pytest.mark.parametrize("family", CONFIGS)
def test_modules_are_the_right_ones(family: str) -> None:
    model = build_classifier(family)
    anatomy = describe_anatomy(model)
    layers = list(model.base_model.get_submodule(LAYERS.get(family, "encoder.layer")))
    assert list(anatomy.layers) == layers
    heads_path, neurons_path = OUTPUTS[family]
    for layer, part in zip(layers, anatomy.parts, strict=True):
        assert part.gated(UnitKind.HEAD) is layer.get_submodule(heads_path)
        assert part.gated(UnitKind.NEURON) is layer.get_submodule(neurons_path)
        assert part.first.out_features == SHAPE.num_neurons
        assert part.unit_width(UnitKind.HEAD) == SHAPE.head_size
        assert part.unit_width(UnitKind.NEURON) == 1
    assert anatomy.embeddings is model.base_model.embeddings


@pytest.mark.parametrize("family", CONFIGS)
def test_bare_encoder_is_described_too(family: str) -> None:
    assert describe_anatomy(AutoModel.from_config(build_config(family))).shape() == SHAPE


def test_compact_model_has_no_dense_shape() -> None:
    mask = make_mask([[0] * 4, [1] * 4, [1] * 4], np.ones((3, SHAPE.num_neurons)))
    anatomy = describe_anatomy(mask.compact(build_classifier("bert")))
    assert anatomy.counts(UnitKind.HEAD) == (0, 4, 4)
    with pytest.raises(UnsupportedModelError, match=r"heads per layer \(0, 4, 4\)"):
        anatomy.shape()


def test_unknown_family_is_named() -> None:
    model = AutoModel.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9))
    with pytest.raises(UnsupportedModelError, match="'gpt2' has no anatomy; supported: bert, "):
        describe_anatomy(model)
    with pytest.raises(UnsupportedModelError, match="'Linear' has no anatomy"):
        describe_anatomy(nn.Linear(2, 2))


def test_other_layout_is_refused() -> None:
    model = DistilBertModel(build_config("distilbert"))
    model.config.model_type = "bert"
    with pytest.raises(UnsupportedModelError, match="DistilBertModel is not laid out like"):
        describe_anatomy(model)


def test_entries_are_values() -> None:
    assert find_family("bert") == find_family("roberta")
    assert hash(find_family("bert")) != hash(find_family("distilbert"))


def test_description_runs_nothing() -> None:
    with torch.device("meta"):
        model = AutoModel.from_config(build_config("bert"))
    assert describe_anatomy(model).shape() == SHAPE
