"""Weights files: compact, without what the checkpoint holds, and the same model again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distprune.core.anatomy import describe_anatomy
from distprune.core.compaction import compact
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import MaskError, StageError
from distprune.models.checkpoint import load_classifier
from distprune.store.store import Store
from distprune.trial.work.weights import load_head, load_model, save_weights
from tests.tiny_study import MODEL_MAX_LENGTH, SHAPE
from tests.trial.studies import keep

DENSE = Mask.dense(SHAPE)
NOTHING = Mask({kind: ~DENSE[kind] for kind in DENSE.kept})
MASKS = [DENSE, keep(4, 13), keep(1, 40), keep(8, 0), NOTHING]


@pytest.fixture(params=["mlm_checkpoint", "body_checkpoint"])
def checkpoint(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def build(checkpoint: str, seed: int = 1, change: str = "") -> Any:
    """Load a classifier and change all weights, or those whose names begin with `change`."""
    model, _ = load_classifier(checkpoint, 2, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(change):
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 53, (3, MODEL_MAX_LENGTH), generator=generator)
    with torch.no_grad():
        result: torch.Tensor = model.eval()(input_ids=ids).logits
    return result


@pytest.mark.parametrize("mask", MASKS, ids=["dense", "some", "one head", "no neuron", "nothing"])
def test_a_compact_model_comes_back_bit_for_bit(
    checkpoint: str, mask: Mask, tmp_path: Path
) -> None:
    model = compact(build(checkpoint), mask)
    save_weights(model, mask, checkpoint, 2, tmp_path / "weights")
    again = load_model(tmp_path / "weights", checkpoint, 2, mask)
    assert torch.equal(logits(again), logits(model))
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_what_the_checkpoint_holds_is_left_out_and_restored(
    checkpoint: str, tmp_path: Path
) -> None:
    mask = keep(5, 17)
    model = compact(build(checkpoint, change="bert.encoder.layer.1."), mask)
    save_weights(model, mask, checkpoint, 2, tmp_path / "weights")
    _, missing = load_classifier(checkpoint, 2, 0)
    stored = set(load_file(tmp_path / "weights"))
    assert missing <= stored
    assert stored - missing == {
        name for name in model.state_dict() if name.startswith("bert.encoder.layer.1.")
    }
    again = load_model(tmp_path / "weights", checkpoint, 2, None)
    assert torch.equal(logits(again), logits(model))


def test_a_new_head_is_kept_whatever_its_values(checkpoint: str, tmp_path: Path) -> None:
    # Seed 0 is that of the template: equal to it, and yet no part of the checkpoint.
    model, missing = load_classifier(checkpoint, 2, seed=0)
    save_weights(model, DENSE, checkpoint, 2, tmp_path / "weights")
    assert set(load_file(tmp_path / "weights")) == missing
    assert "classifier.weight" in missing


def test_the_file_says_how_to_build_its_model(checkpoint: str, tmp_path: Path) -> None:
    mask = keep(3, 9)
    save_weights(compact(build(checkpoint), mask), mask, checkpoint, 2, tmp_path / "weights")
    with safe_open(tmp_path / "weights", framework="pt") as file:
        assert Mask.unpack(file.metadata()["mask"]) == mask
    model = load_model(tmp_path / "weights", checkpoint, 2, None)
    for kind in UnitKind:
        assert describe_anatomy(model).counts(kind) == tuple(mask[kind].sum(axis=1))


def test_a_narrower_mask_makes_a_smaller_model(checkpoint: str, tmp_path: Path) -> None:
    dense = build(checkpoint)
    live = keep(6, 30)
    narrow = Mask({kind: live[kind] & keep(5, 25, seed=1)[kind] for kind in live.kept})
    save_weights(compact(dense, live), live, checkpoint, 2, tmp_path / "weights")
    model = load_model(tmp_path / "weights", checkpoint, 2, narrow)
    assert torch.equal(logits(model), logits(compact(dense, narrow)))


def test_a_lost_unit_does_not_come_back(checkpoint: str, tmp_path: Path) -> None:
    live = keep(6, 30)
    save_weights(compact(build(checkpoint), live), live, checkpoint, 2, tmp_path / "weights")
    with pytest.raises(MaskError, match="has lost"):
        load_model(tmp_path / "weights", checkpoint, 2, DENSE)


@pytest.mark.parametrize("spoil", ["foreign", "headless"])
def test_a_file_that_does_not_fit_is_refused(checkpoint: str, tmp_path: Path, spoil: str) -> None:
    save_weights(build(checkpoint), DENSE, checkpoint, 2, tmp_path / "weights")
    state = load_file(tmp_path / "weights")
    if spoil == "foreign":
        state["distilbert.embeddings"] = torch.zeros(1)
    else:
        del state["classifier.weight"]
    save_file(state, tmp_path / "weights", metadata={"mask": DENSE.pack()})
    with pytest.raises(StageError, match="start the search afresh"):
        load_model(tmp_path / "weights", checkpoint, 2, None)


def test_models_do_not_share_weights(checkpoint: str, tmp_path: Path) -> None:
    save_weights(build(checkpoint), DENSE, checkpoint, 2, tmp_path / "weights")
    first = load_model(tmp_path / "weights", checkpoint, 2, None)
    expected = logits(first)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert torch.equal(logits(load_model(tmp_path / "weights", checkpoint, 2, None)), expected)


def test_the_head_of_other_weights(checkpoint: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    donor = build(checkpoint, seed=2)
    key = "a" * 64
    store.commit(key, lambda f: save_weights(donor, DENSE, checkpoint, 2, f / "weights"), {})
    model, _ = load_classifier(checkpoint, 2, seed=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_head(model, store, key, "weights")
    for name, value in model.state_dict().items():
        is_head = name.startswith(("classifier.", "bert.pooler."))
        assert torch.equal(value, donor.state_dict()[name] if is_head else before[name]), name


def test_a_head_that_is_gone(checkpoint: str, tmp_path: Path) -> None:
    model, _ = load_classifier(checkpoint, 2, seed=3)
    with pytest.raises(StageError, match="not in the store any more"):
        load_head(model, Store(str(tmp_path)), "a" * 64, "weights")
