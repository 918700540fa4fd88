"""A compact model is a model: it saves, loads, copies and pickles as any model of transformers."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from distprune.core.compact_model import Compact, EmptyAttention, compact_class, dense_class, shrink
from distprune.core.mask import Mask
from tests.core.mask_strategies import make_mask
from tests.model_families import (
    CONFIGS,
    SHAPE,
    build_classifier,
    build_masked_lm,
    compute_logits,
    sample_batch,
)

DENSE = Mask.dense(SHAPE)
NOTHING = make_mask(~DENSE["head"], ~DENSE["neuron"])
MIXED = make_mask(
    [[0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0]],
    [[1, 0] * 10, [0] * 20, [1] * 20],
)

LOAD_WITHOUT_DISTPRUNE = """
import sys
sys.modules["distprune"] = None  # an import of it fails
import torch
from transformers import AutoModelForSequenceClassification
folder, result = sys.argv[1:]
torch.set_num_threads(1)
batch = torch.load(folder + "/batch.pt")
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
with torch.no_grad():
    torch.save(model(**batch).logits, result)
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Compute as the other processes do; code of saved folders is cached where the test is."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("mask", [MIXED, NOTHING], ids=["mixed", "nothing"])
def test_a_fresh_process_without_distprune_computes_the_same_bits(
    family: str, mask: Mask, tmp_path: Path
) -> None:
    compact, batch = mask.compact(build_classifier(family)), sample_batch(family)
    compact.save_pretrained(tmp_path / "saved")
    torch.save(dict(batch), tmp_path / "saved" / "batch.pt")
    script = tmp_path / "load.py"
    script.write_text(LOAD_WITHOUT_DISTPRUNE)
    result = tmp_path / "logits.pt"
    subprocess.run([sys.executable, script, tmp_path / "saved", result], check=True)
    assert torch.equal(torch.load(result), compute_logits(compact, batch))


@pytest.mark.parametrize("family", CONFIGS)
def test_it_copies_pickles_and_saves_again(family: str, tmp_path: Path) -> None:
    compact, batch = MIXED.compact(build_classifier(family)), sample_batch(family)
    expected = compute_logits(compact, batch)
    for other in (copy.deepcopy(compact), pickle.loads(pickle.dumps(compact))):
        assert type(other) is type(compact)
        assert torch.equal(compute_logits(other, batch), expected)
    compact.save_pretrained(tmp_path / "once")
    loaded = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "once", trust_remote_code=True
    )
    loaded.save_pretrained(tmp_path / "twice")
    again = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "twice", trust_remote_code=True
    ).eval()
    assert torch.equal(compute_logits(again, batch), expected)


def test_its_class_keeps_the_name_and_is_made_once() -> None:
    dense = build_classifier("bert")
    compact = MIXED.compact(dense)
    assert isinstance(compact, Compact)
    assert isinstance(compact, type(dense))
    assert type(compact).__name__ == type(dense).__name__
    assert compact_class(type(dense)) is type(compact) is compact_class(type(compact))
    assert dense_class(type(compact)) is type(dense) is dense_class(type(dense))


@pytest.mark.parametrize("family", CONFIGS)
def test_transformers_knows_what_it_can_do(family: str) -> None:
    compact = MIXED.compact(build_classifier(family, "sdpa"))
    compact.set_attn_implementation("eager")
    assert compact.config._attn_implementation == "eager"


def test_attention_modules_know_their_heads() -> None:
    compact = MIXED.compact(build_classifier("bert"))
    attentions = [layer.attention.self for layer in compact.bert.encoder.layer]
    assert isinstance(attentions[0], EmptyAttention)
    assert [attention.num_attention_heads for attention in attentions[1:]] == [2, 1]
    assert [attention.all_head_size for attention in attentions[1:]] == [12, 6]


def test_a_dense_mask_leaves_the_class_alone() -> None:
    copied = DENSE.compact(build_classifier("bert"))
    assert not isinstance(copied, Compact)
    assert not hasattr(copied.config, "distprune")


def test_the_dense_model_and_its_configuration_stay_as_they_are() -> None:
    dense = build_classifier("bert")
    MIXED.compact(dense)
    assert not isinstance(dense, Compact)
    assert not hasattr(dense.config, "distprune")


def test_other_tasks_and_the_base_model_load_too(tmp_path: Path) -> None:
    compact = MIXED.compact(build_masked_lm("bert"))
    compact.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["auto_map"] == {
        "AutoModelForMaskedLM": "compact_modeling.BertForMaskedLM",
        "AutoModel": "compact_modeling.BertModel",
    }
    base = AutoModel.from_pretrained(tmp_path, trust_remote_code=True, add_pooling_layer=False)
    ids = torch.arange(5)[None] + 5
    with torch.no_grad():
        expected = compact.bert.eval()(ids).last_hidden_state
        assert torch.equal(base.eval()(ids).last_hidden_state, expected)


def test_without_the_code_transformers_refuses_the_folder(tmp_path: Path) -> None:
    MIXED.compact(build_classifier("bert")).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_loading_a_compact_model_leaves_dense_ones_alone(tmp_path: Path) -> None:
    MIXED.compact(build_classifier("bert")).save_pretrained(tmp_path)
    AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=True)
    dense = AutoModelForSequenceClassification.from_config(build_classifier("bert").config)
    assert dense_class(type(dense)) is type(dense)
    assert type(dense).__module__.startswith("transformers.")


def test_pushing_uploads_the_code_with_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact = MIXED.compact(build_classifier("bert"))
    uploaded: dict[str, Any] = {}

    def push(self: Any, repo_id: str, **options: Any) -> str:
        self.save_pretrained(tmp_path / "upload")
        uploaded.update(options, repo_id=repo_id)
        return "address"

    monkeypatch.setattr(dense_class(type(compact)), "push_to_hub", push)
    assert compact.save_pretrained(tmp_path / "mine", push_to_hub=True, private=True) == "address"
    assert uploaded == {"repo_id": "mine", "private": True}
    names = {path.name for path in (tmp_path / "upload").iterdir()}
    assert {"compact_model.py", "compact_modeling.py", "model.safetensors"} <= names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": [1, 1]}, "counts of 2 layers; the model has 3"),
        ({"heads": [1, 5, 1]}, "5 heads and 20 neurons in a layer that has 4 and 20"),
        ({"neurons": [1, -1, 1]}, "-1 neurons"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    record = {**MIXED.compact(build_classifier("bert")).config.distprune}
    record |= {"heads": [1, 1, 1], "neurons": [20, 20, 20]} | changes
    with pytest.raises(ValueError, match=message):
        shrink(build_classifier("bert"), record)


def test_a_model_made_from_the_configuration_has_its_size(tmp_path: Path) -> None:
    compact = MIXED.compact(build_classifier("bert"))
    compact.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    fresh = type(compact)(config)
    shapes = {name: tensor.shape for name, tensor in compact.state_dict().items()}
    assert {name: tensor.shape for name, tensor in fresh.state_dict().items()} == shapes
    assert all(bool(torch.isfinite(parameter).all()) for parameter in fresh.parameters())
