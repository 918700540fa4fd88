"""Folders of compact models: what is in them, what is refused, and that none is half-written."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distprune.core.mask import Mask
from distprune.deployment import compact_folder
from distprune.deployment.certificate import Certificate
from distprune.deployment.compact_folder import load, save
from distprune.errors import CheckpointError, ExportError, MaskError, StorageError
from distprune.models.checkpoint import inspect_checkpoint
from tests.core.mask_strategies import make_mask
from tests.model_families import SHAPE, build_classifier, compute_logits, sample_batch

DENSE = Mask.dense(SHAPE)
MIXED = make_mask(
    [[0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0]],
    [[1, 0] * 10, [0] * 20, [1] * 20],
).with_metadata({"checkpoint": {"name": "tiny"}})


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(MIXED.compact(build_classifier("bert")), tmp_path / "small", MIXED)
    return tmp_path / "small"


def test_a_folder_has_everything(tmp_path: Path) -> None:
    compact = MIXED.compact(build_classifier("bert"))
    certificate = save(compact, tmp_path / "small", MIXED, num_tokens=10)
    names = {path.name for path in (tmp_path / "small").iterdir()}
    assert names == {
        "README.md",
        "certificate.json",
        "compact_model.py",
        "compact_modeling.py",
        "config.json",
        "evidence.json",
        "mask.safetensors",
        "model.safetensors",
    }
    assert isinstance(certificate, Certificate)
    assert Mask.load(tmp_path / "small" / "mask.safetensors") == MIXED
    values = json.loads((tmp_path / "small" / "certificate.json").read_text())
    assert [one["second"] for one in values["agreements"]] == ["compact", "reloaded"]
    assert values["compact"]["parameters"] == sum(p.numel() for p in compact.parameters())
    card = (tmp_path / "small" / "README.md").read_text()
    assert "9 of 12 heads and 30 of 60 neurons of tiny were removed" in card
    assert "speed" not in card


def test_loading_gives_the_same_bits_in_evaluation_mode(saved: Path) -> None:
    loaded, batch = load(saved), sample_batch("bert")
    assert not loaded.training
    expected = compute_logits(MIXED.compact(build_classifier("bert")), batch)
    assert torch.equal(compute_logits(loaded, batch), expected)


def test_saving_leaves_the_model_in_its_mode(tmp_path: Path) -> None:
    compact = MIXED.compact(build_classifier("bert")).train()
    save(compact, tmp_path / "small", MIXED)
    assert compact.training


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    save(MIXED.compact(build_classifier("bert")), tmp_path / "small", MIXED)
    assert (tmp_path / "small" / "config.json").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="exists and is not empty; name a new one"):
        save(MIXED.compact(build_classifier("bert")), tmp_path, MIXED)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_mask_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="use the mask that the model was compacted to"):
        save(build_classifier("bert"), tmp_path / "small", MIXED)
    assert list(tmp_path.iterdir()) == []


def test_what_computes_something_else_is_not_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_other(folder: Path) -> Any:
        model = load(folder)
        with torch.no_grad():
            model.classifier.bias[0] += 1e-6
        return model

    monkeypatch.setattr(compact_folder, "load", load_other)
    with pytest.raises(ExportError, match=r"compact and reloaded differ by .*, and 0 is accepted"):
        save(MIXED.compact(build_classifier("bert")), tmp_path / "small", MIXED)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_finite_is_not_handed_over(tmp_path: Path) -> None:
    compact = MIXED.compact(build_classifier("bert"))
    with torch.no_grad():
        compact.classifier.bias[0] = float("nan")
    with pytest.raises(ExportError, match="differ by nan"):
        save(compact, tmp_path / "small", MIXED)
    assert list(tmp_path.iterdir()) == []


def test_a_dense_folder_is_no_compact_model(tmp_path: Path) -> None:
    build_classifier("bert").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="has all its heads and neurons"):
        load(tmp_path)


def test_a_compact_folder_is_no_checkpoint_to_prune(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="has lost heads and neurons already"):
        inspect_checkpoint(str(saved))


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", ["os.system", "Trainer", "AutoModel", "", 3])
def test_only_model_classes_of_transformers_are_loaded(saved: Path, name: Any) -> None:
    change_config(saved, architectures=[name])
    with pytest.raises(CheckpointError, match="is none of transformers"):
        load(saved)


def test_counts_that_do_not_fit_are_refused(saved: Path) -> None:
    record = json.loads((saved / "config.json").read_text())["distprune"]
    change_config(saved, distprune={**record, "heads": [0, 4, 1]})
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(saved)


@pytest.mark.parametrize("record", [7, [], {"heads": [1]}, {"heads": "x", "layout": {}}])
def test_a_damaged_record_is_refused(saved: Path, record: Any) -> None:
    change_config(saved, distprune=record)
    with pytest.raises(CheckpointError):
        load(saved)


def test_a_header_of_ten_gigabytes_is_refused(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", 10 << 30) + weights.read_bytes()[8:])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(saved)


def test_a_truncated_file_is_refused(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(saved)


def test_a_pickle_renamed_is_not_executed(saved: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (saved / "attacked",)

    (saved / "model.safetensors").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(saved)
    assert not (saved / "attacked").exists()


def test_pickled_weights_are_not_read(saved: Path) -> None:
    torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(saved)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/secret.safetensors"])
def test_an_index_does_not_lead_out_of_the_folder(saved: Path, name: str) -> None:
    secret = (saved / name).resolve()
    if secret.parent == saved.parent:
        save_file({"secret": torch.zeros(1)}, secret)
    (saved / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"classifier.weight": name}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="which is no file of the folder"):
        load(saved)


def test_code_in_the_folder_is_not_run(saved: Path) -> None:
    for name in ("compact_model.py", "compact_modeling.py"):
        (saved / name).write_text(f"open({str(saved / 'attacked')!r}, 'w')")
    load(saved)
    assert not (saved / "attacked").exists()
