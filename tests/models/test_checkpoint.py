"""Checkpoints as models: facts, heads of their own and new ones, and files that are broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.utils import logging

from distprune.errors import CheckpointError, UnsupportedModelError
from distprune.models.checkpoint import (
    inspect_checkpoint,
    load_classifier,
    load_masked_language_model,
    load_tokenizer,
)
from distprune.models.source import fingerprint_checkpoint
from tests.model_families import build_config
from tests.tiny_study import SHAPE


@pytest.fixture
def broken(mlm_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to break."""
    return Path(shutil.copytree(mlm_checkpoint, tmp_path / "broken"))


def head_of(model: Any) -> torch.Tensor:
    weight: torch.Tensor = model.classifier.weight
    return weight


def test_facts_of_a_checkpoint_with_its_head(mlm_checkpoint: Path) -> None:
    facts = inspect_checkpoint(str(mlm_checkpoint))
    assert facts.shape == SHAPE
    assert facts.model_type == "bert"
    assert facts.vocabulary_size == 60
    assert facts.has_mlm_head
    assert facts.fingerprint == fingerprint_checkpoint(mlm_checkpoint)


def test_facts_of_a_checkpoint_without_a_head(body_checkpoint: Path) -> None:
    facts = inspect_checkpoint(str(body_checkpoint))
    assert facts.shape == SHAPE
    assert not facts.has_mlm_head


def test_a_folder_is_located_for_every_process(
    mlm_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mlm_checkpoint.parent)
    facts = inspect_checkpoint(mlm_checkpoint.name)
    assert facts.name == mlm_checkpoint.name
    assert facts.location == str(mlm_checkpoint)


def test_a_hub_id_is_pinned_to_its_commit(
    mlm_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    commit = tmp_path / "snapshots" / "0123abcd"
    shutil.copytree(mlm_checkpoint, commit)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(commit))
    for name in ("org/model", "org/model@main"):
        facts = inspect_checkpoint(name)
        assert (facts.name, facts.location) == (name, "org/model@0123abcd")


def test_the_head_follows_the_seed_and_the_body_is_that_of_the_file(body_checkpoint: Path) -> None:
    first, missing = load_classifier(str(body_checkpoint), 3, seed=1)
    again, _ = load_classifier(str(body_checkpoint), 3, seed=1)
    other, _ = load_classifier(str(body_checkpoint), 3, seed=2)
    assert missing == {"classifier.weight", "classifier.bias"}
    assert head_of(first).shape == (3, SHAPE.hidden_size)
    assert torch.equal(head_of(first), head_of(again))
    assert not torch.equal(head_of(first), head_of(other))
    stored = load_file(body_checkpoint / "model.safetensors")
    for name, value in stored.items():
        assert torch.equal(other.state_dict()[f"bert.{name}"], value), name


def test_loading_leaves_the_random_state_and_the_verbosity(body_checkpoint: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_classifier(str(body_checkpoint), 2, seed=1)
    inspect_checkpoint(str(body_checkpoint))
    assert torch.equal(torch.rand(4), expected)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_loading_is_silent(body_checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_classifier(str(body_checkpoint), 2, seed=1)
    inspect_checkpoint(str(body_checkpoint))
    assert capfd.readouterr() == ("", "")


def test_a_head_of_another_size_is_made_anew(body_checkpoint: Path, tmp_path: Path) -> None:
    model, _ = load_classifier(str(body_checkpoint), 3, seed=1)
    model.save_pretrained(tmp_path)
    first, missing = load_classifier(str(tmp_path), 2, seed=5)
    again, _ = load_classifier(str(tmp_path), 2, seed=5)
    other, _ = load_classifier(str(tmp_path), 2, seed=6)
    assert missing == {"classifier.weight", "classifier.bias"}
    assert head_of(first).shape == (2, SHAPE.hidden_size)
    assert torch.equal(head_of(first), head_of(again))
    assert not torch.equal(head_of(first), head_of(other))


def test_one_output_is_regression(body_checkpoint: Path) -> None:
    model, _ = load_classifier(str(body_checkpoint), 1, seed=0)
    labels = torch.tensor([0.5, -2.0])
    outputs = model(input_ids=torch.full((2, 4), 7), labels=labels)
    expected = (outputs.logits[:, 0] - labels).square().mean()
    torch.testing.assert_close(outputs.loss, expected)


def test_weights_are_loaded_in_float32(mlm_checkpoint: Path, broken: Path) -> None:
    model = load_masked_language_model(str(mlm_checkpoint))
    model.to(torch.bfloat16).save_pretrained(broken)
    for loaded in (load_masked_language_model(str(broken)), load_classifier(str(broken), 2, 0)[0]):
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_the_masked_language_head_is_the_checkpoints_own(mlm_checkpoint: Path) -> None:
    model = load_masked_language_model(str(mlm_checkpoint))
    stored = load_file(mlm_checkpoint / "model.safetensors")
    heads = [name for name in stored if name.startswith("cls.")]
    assert heads
    for name in stored:
        assert torch.equal(model.state_dict()[name], stored[name]), name


def test_a_masked_language_head_is_never_made_up(body_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"needs the checkpoint's own MLM head and .* none"):
        load_masked_language_model(str(body_checkpoint))


def test_half_a_head_is_none(broken: Path) -> None:
    from safetensors.torch import save_file

    state = load_file(broken / "model.safetensors")
    del state["cls.predictions.transform.dense.weight"]
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    assert not inspect_checkpoint(str(broken)).has_mlm_head


def test_a_tokenizer(mlm_checkpoint: Path) -> None:
    tokenizer = load_tokenizer(str(mlm_checkpoint))
    assert tokenizer("superb word3")["input_ids"] == [2, 5, 16, 3]
    assert tokenizer.mask_token_id == 4


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def remove(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def spoil_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def forget_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))


def resize(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 12}))


@pytest.mark.parametrize("spoil", [truncate, empty, remove, spoil_config, forget_type, resize])
def test_a_broken_checkpoint_is_one_clear_line(broken: Path, spoil: Any) -> None:
    spoil(broken)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        inspect_checkpoint(str(broken))
    assert str(broken) in str(caught.value)
    assert "use a complete folder that save_pretrained wrote" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_tokenizer(broken: Path) -> None:
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"the tokenizer of .* cannot be read") as caught:
        load_tokenizer(str(broken))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
def test_a_checkpoint_without_a_tokenizer(tmp_path: Path, family: str) -> None:
    # transformers makes up a tokenizer here to which all words are unknown.
    build_config(family).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="has no tokenizer; save that which it was trained"):
        load_tokenizer(str(tmp_path))


def test_a_family_without_anatomy_names_those_that_have_one(tmp_path: Path) -> None:
    from transformers import GPT2Config

    GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=10).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="'gpt2' has no anatomy") as caught:
        inspect_checkpoint(str(tmp_path))
    for name in ("bert", "roberta", "distilbert", "electra"):
        assert name in str(caught.value)


@pytest.mark.slow
def test_the_demo_checkpoint_has_no_head_of_its_own() -> None:
    facts = inspect_checkpoint("demo:minilm")
    assert facts.location == "demo:minilm"
    assert (facts.shape.num_layers, facts.shape.num_heads) == (6, 12)
    assert not facts.has_mlm_head
    tokenizer = load_tokenizer("demo:minilm")
    assert len(tokenizer) <= facts.vocabulary_size
