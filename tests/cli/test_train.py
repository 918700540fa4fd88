"""`distprune train`: a ticket on a task, beside controls; everything bad is refused beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from distprune import Mask
from distprune.core.units import UnitKind
from distprune.library.study_folder import StudyFolder
from tests.cli.conftest import Finished, RunCommand
from tests.cli.refusal import check_nothing_done, check_refusal, list_stages
from tests.tiny_study import SHAPE
from tests.trial.studies import LEARNING, keep

pytestmark = pytest.mark.filterwarnings("ignore")

Train = Any


@pytest.fixture
def mask(tmp_path: Path, mlm_checkpoint: Path) -> Path:
    """A mask that names its checkpoint and the rewinding point that it was found with."""
    path = tmp_path / "mask.safetensors"
    metadata = {
        "checkpoint": {"name": str(mlm_checkpoint), "fingerprint": "f" * 64},
        "rewinding": "continue",
        "study": "tiny",
    }
    keep(3, 11).with_metadata(metadata).save(path)
    return path


@pytest.fixture
def task(tmp_path: Path, word_task: Path) -> Path:
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump({"dataset": str(word_task), "max_length": 16}))
    return path


@pytest.fixture
def train(tmp_path: Path, run_command: RunCommand, mask: Path, task: Path) -> Train:
    """Call `distprune train`; options replace those that make it quick."""

    def call(*more: object, **changes: object) -> Finished:
        options: dict[str, object] = {"mask": mask, "task": task}
        options["storage"] = tmp_path / "studies"
        words = [
            word
            for name, value in (options | changes).items()
            if value is not None
            for word in (f"--{name}", value)
        ]
        return run_command("train", *words, "--set", "precision=float32", *more)

    return call


def quickly(**settings: object) -> list[str]:
    values = {f"fine_tuning.{name}": value for name, value in LEARNING.items()} | settings
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


class TestTraining:
    def test_table_and_again_from_the_store(self, train: Train, tmp_path: Path) -> None:
        finished = train("--controls", "random,inverted", "--seeds", 2, *quickly())
        assert finished.code == 0, finished.err
        lines = [line.split() for line in finished.out.splitlines() if line.strip()]
        names = [line[0] for line in lines]
        assert [n for n in names if n in ("ticket", "random", "inverted", "dense")] == [
            *("ticket", "random", "inverted", "dense"),
        ]
        text = " ".join(" ".join(line) for line in lines)
        assert "over 2 seeds" in text
        assert "rewinding point 1," in text
        assert "-63 %" in text  # of the encoder's parameters
        assert "the mask was found on" in finished.err
        before = sorted(entries(tmp_path))
        again = train("--controls", "random,inverted", "--seeds", 2, *quickly())
        assert again.out == finished.out
        assert sorted(entries(tmp_path)) == before

    def test_json(self, train: Train, mask: Path, mlm_checkpoint: Path) -> None:
        finished = train("--json", "--rewinding", "0.5", *quickly(seed=4))
        values = json.loads(finished.out)
        assert values["checkpoint"]["name"] == str(mlm_checkpoint)
        assert values["mask"] == {
            "digest": Mask.load(mask).digest,
            "heads": 3,
            "neurons": 11,
        }
        assert (values["metric"], values["rewinding"]) == ("accuracy", 0.5)
        ticket, dense = values["arms"]
        assert [arm["name"] for arm in (ticket, dense)] == ["ticket", "dense fine-tuned"]
        assert ticket["seeds"][0]["seed"] == 4
        assert set(ticket["seeds"][0]["metrics"]) == {"search", "report"}
        assert dense["retentions"] == [1.0]

    def test_another_task_and_another_checkpoint_of_the_same_shape(
        self, train: Train, degree_task: Path, body_checkpoint: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "degrees.yaml"
        other.write_text(yaml.safe_dump({"dataset": str(degree_task)}))
        settings = quickly(**{"task.max_length": 16})
        finished = train("--json", *settings, task=other, model=body_checkpoint)
        assert finished.code == 0, finished.err
        values = json.loads(finished.out)
        assert values["metric"] == "pearson_spearman"
        assert values["checkpoint"]["name"] == str(body_checkpoint)
        assert f"is used on {body_checkpoint}" in finished.err

    def test_controls_of_importance_and_dense(self, train: Train) -> None:
        finished = train("--json", "--controls", "lambda_0, lambda_1,magnitude,dense", *quickly())
        assert finished.code == 0, finished.err
        arms = {arm["name"]: arm for arm in json.loads(finished.out)["arms"]}
        assert set(arms) == {
            *("ticket", "lambda_0", "lambda_1", "magnitude", "dense", "dense fine-tuned")
        }
        sizes = {name: arm["cost"]["parameters"] for name, arm in arms.items()}
        assert sizes["lambda_0"] == sizes["lambda_1"] == sizes["magnitude"] == sizes["ticket"]
        assert sizes["dense"] == sizes["dense fine-tuned"] > sizes["ticket"]

    def test_saved_model_is_the_best_on_the_search_split(
        self, train: Train, tmp_path: Path
    ) -> None:
        from distprune.deployment.compact_folder import load
        from distprune.models.checkpoint import load_tokenizer

        folder = tmp_path / "small"
        finished = train("--json", "--seeds", 2, "--save", folder, *quickly())
        assert finished.code == 0, finished.err
        seeds = json.loads(finished.out)["arms"][0]["seeds"]
        best = max(seeds, key=lambda one: one["metrics"]["search"])
        evidence = json.loads((folder / "evidence.json").read_text())
        assert evidence["training"]["saved_seed"] == best["seed"]
        assert evidence["metrics"]["report"] == best["metrics"]["report"]
        assert evidence["training"]["rewinding"] == 1.0
        assert evidence["mask"]["study"] == "tiny"
        model, tokenizer = load(folder), load_tokenizer(str(folder))
        assert model.config.id2label == {0: "bad", 1: "good"}
        logits = model(**tokenizer(["superb lovely", "boring bland"], return_tensors="pt")).logits
        assert logits.argmax(dim=1).tolist() == [1, 0]
        assert Mask.load(folder / "mask.safetensors") == keep(3, 11)


def entries(folder: Path) -> list[str]:
    from distprune.store.store import Store

    return list(Store(str(StudyFolder(folder / "studies", "").store)).keys())


class TestRefusal:
    """One line, and nothing is trained."""

    @pytest.fixture(autouse=True)
    def nothing_done(self, tmp_path: Path) -> Any:
        yield
        check_nothing_done(tmp_path)

    def test_mask_of_other_counts(self, train: Train, tmp_path: Path) -> None:
        kept = {kind: [[True] * 3] * 5 for kind in UnitKind}
        import numpy as np

        other = tmp_path / "other.safetensors"
        origin = {"checkpoint": Mask.load(tmp_path / "mask.safetensors").metadata["checkpoint"]}
        Mask({kind: np.array(rows) for kind, rows in kept.items()}, origin).save(other)
        check_refusal(
            train(mask=other),
            2,
            "was made for 5 layers of 3 heads and 3 neurons",
            f"has {SHAPE.num_layers} layers of {SHAPE.num_heads} heads and 20 neurons",
        )

    def test_compact_checkpoint(self, train: Train, tmp_path: Path) -> None:
        from tests.tracking.compact_models import save_compact

        folder = save_compact(tmp_path / "small", keep(4, 20))
        check_refusal(train(model=folder), 2, "checkpoint", "has lost heads and neurons already")

    def test_head_for_other_labels(
        self, train: Train, tmp_path: Path, degree_task: Path, mlm_checkpoint: Path
    ) -> None:
        from tests.tiny_study import make_tokenizer
        from tests.tracking.compact_models import build_model

        folder = tmp_path / "fine-tuned"
        build_model(num_labels=2).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        path = tmp_path / "degrees.yaml"
        path.write_text(yaml.safe_dump({"dataset": str(degree_task), "max_length": 16}))
        check_refusal(train(model=folder, task=path), 2, "has 2 outputs", "the task needs 1")

    def test_folder_that_is_not_empty(self, train: Train, tmp_path: Path) -> None:
        full = tmp_path / "full"
        full.mkdir()
        (full / "precious").write_text("x")
        check_refusal(train(save=full), 2, str(full), "exists and is not empty")
        assert [path.name for path in full.iterdir()] == ["precious"]

    @pytest.mark.parametrize(
        ("task", "words"),
        [
            ("demo:movie", "did you mean 'demo:movies'?"),
            ("movies", "is neither a demo task"),
            ("nowhere.yaml", "cannot be read"),
        ],
    )
    def test_unknown_task(self, task: str, words: str, train: Train) -> None:
        check_refusal(train(task=task), 2, task, words)

    def test_dataset_that_does_not_exist(self, train: Train, tmp_path: Path) -> None:
        path = tmp_path / "lost.yaml"
        path.write_text("dataset: lost.csv\nmax_length: 16\n")
        check_refusal(train(task=path), 2, "lost.csv", "there is no such file")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--controls", "randon"), "did you mean 'random'?"),
            (("--rewinding", "begin"), "--rewinding: 'begin'; it must be from 0"),
            (("--set", "pruning.target_sparsity=0.2"), "is no setting of this verb"),
            (("--set", "task.lable=x"), "task.lable: unknown name; did you mean 'label'?"),
            (("--set", "seed=-1"), "seed"),
        ],
    )
    def test_bad_value(self, arguments: tuple[str, str], words: str, train: Train) -> None:
        check_refusal(train(*arguments), 2, words)

    def test_mask_without_checkpoint(self, train: Train, tmp_path: Path) -> None:
        path = tmp_path / "plain.safetensors"
        keep(3, 11).save(path)
        check_refusal(train(mask=path), 2, "--model", "does not say what it was found on")

    def test_missing_mask(self, train: Train) -> None:
        check_refusal(train(mask="nowhere.safetensors"), 2, "name a file that exists")


def test_stages_are_those_of_any_trial(train: Train, tmp_path: Path) -> None:
    train(*quickly(**{"fine_tuning.epochs": 0.1}))
    assert list_stages(tmp_path / "studies" / "store") <= {
        *("prepare", "dense", "snapshot", "retrain", "evaluate"),
    }
