"""The README's Python, run as it is written, in a folder that has what it names."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from tests.in_process_study import run_study_in_process
from tests.tiny_study import save_checkpoint

README = Path(__file__).resolve().parents[1] / "README.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)

CHANGES = {"name": "movies", "milestones": 2, "trial.pruning.target_sparsity": 0.5}


@pytest.fixture
def prepared(
    tmp_path: Path, mlm_checkpoint: Path, word_task: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A study `movies`, a fine-tuned model of its architecture, and a table of reviews."""
    from transformers import AutoModelForSequenceClassification

    run_study_in_process(tmp_path / "studies", mlm_checkpoint, word_task, CHANGES)
    save_checkpoint(tmp_path / "my-fine-tuned-model", has_mlm_head=True)
    AutoModelForSequenceClassification.from_pretrained(mlm_checkpoint).save_pretrained(
        tmp_path / "my-fine-tuned-model"
    )
    number_labels(word_task, tmp_path / "reviews.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return tmp_path


def number_labels(source: Path, target: Path) -> None:
    """Copy a table, with numbers for its labels, as transformers' Trainer takes them."""
    with source.open() as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["label"] for row in rows})
    with target.open("w") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows({**row, "label": names.index(row["label"])} for row in rows)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) == 5
    assert all("distprune" in code or "small" in code for code in SNIPPETS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_snippets_run_as_written(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for number, code in enumerate(SNIPPETS):
        exec(compile(code, f"README snippet {number}", "exec"), names)
    assert (prepared / "small-model" / "certificate.json").exists()
    assert names["mask"].sparsity("head") == 0.5
    assert "label" in capsys.readouterr().out
    assert names["model"].num_parameters() < names["dense"].num_parameters()
