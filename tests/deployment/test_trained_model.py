"""The trained model of a study's best mask."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

import distprune
from distprune.core.mask import Mask
from distprune.deployment.trained_model import compact_checkpoint, load_trained
from distprune.errors import CheckpointError, MaskError, StorageError
from distprune.library.mask_reference import parse_best
from distprune.library.study_folder import StudyFolder
from distprune.store.store import Store
from distprune.tasks.prepared import PreparedTask
from tests.model_families import SHAPE, build_classifier
from tests.tiny_study import save_checkpoint


def test_it_is_the_model_that_the_study_measured(ended: StudyFolder) -> None:
    best = parse_best(f"{ended.root}/best@0.6")
    assert best is not None
    trained = load_trained(best)
    assert trained.mask == Mask.load(best.path)
    assert not trained.model.training
    store = Store(str(ended.store))
    evaluation = store.find(trained.evidence["lineage"]["evaluation"])
    assert evaluation is not None
    prepared = store.find(str(evaluation.record["inputs"]["task"]))  # type: ignore[index, call-overload]
    assert prepared is not None
    search = PreparedTask.open(prepared.path("facts.json").parent).split("search")
    measured = load_file(evaluation.path("outputs.safetensors"))
    with torch.no_grad():
        for row in range(5):
            ids = torch.tensor([search[row]["input_ids"]])
            logits = trained.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            expected = torch.from_numpy(measured["logits"][row])
            torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-4)
    assert trained.num_tokens == pytest.approx(
        sum(map(len, search["input_ids"])) / len(search["input_ids"])
    )


def test_labels_have_the_names_of_the_task(ended: StudyFolder) -> None:
    model = distprune.load(f"{ended.root}/best@0.2")
    assert set(model.config.id2label) == {0, 1}
    assert model.config.label2id == {name: n for n, name in model.config.id2label.items()}
    assert not any(name.startswith("LABEL") for name in model.config.label2id)


def test_weights_that_are_gone_are_named(ended: StudyFolder, tmp_path: Path) -> None:
    copied = StudyFolder(tmp_path, ended.name)
    shutil.copytree(ended.root, copied.root)
    best = parse_best(f"{copied.root}/best@0.6")
    assert best is not None
    with pytest.raises(StorageError, match="run `distprune search` again to go on with study tiny"):
        load_trained(best)


def test_a_checkpoint_that_changed_is_refused(
    ended: StudyFolder, mlm_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = parse_best(f"{ended.root}/best@0.6")
    assert best is not None
    other = save_checkpoint(tmp_path / "other", seed=7)
    monkeypatch.setattr("distprune.deployment.trained_model.locate_checkpoint", lambda name: other)
    with pytest.raises(CheckpointError, match="has changed since study tiny ran"):
        load_trained(best)


def test_a_fine_tuned_checkpoint_is_compacted_with_its_head(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "with-tokenizer")
    dense = build_classifier("bert")
    dense.save_pretrained(tmp_path / "tuned")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, tmp_path / "tuned" / name)
    mask = Mask.unpack(Mask.dense(SHAPE).pack())
    trained = compact_checkpoint(mask, str(tmp_path / "tuned"))
    assert torch.equal(trained.model.classifier.weight, dense.classifier.weight)
    with pytest.raises(MaskError, match="made for 1 layers"):
        compact_checkpoint(Mask.unpack("1x1:gA==|1x1:gA=="), str(tmp_path / "tuned"))


def test_a_checkpoint_without_a_head_is_refused(mlm_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="has no classification head"):
        compact_checkpoint(Mask.dense(SHAPE), str(mlm_checkpoint))
