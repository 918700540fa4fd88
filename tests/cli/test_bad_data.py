"""Data that cannot be used are refused before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import RunCommand, WriteStudy
from tests.cli.refusal import STARTING, check_nothing_done, check_refusal
from tests.tiny_study import GOOD

Row = dict[str, object]


def make_rows(count: int = 60, **changes: Callable[[int], object]) -> list[Row]:
    """Return rows of distinct texts and two classes; each change makes a column of row numbers."""
    columns: dict[str, Callable[[int], object]] = {
        "text": lambda row: f"word{row % 40} {GOOD[row % 4]} word{row // 40}",
        "label": lambda row: ("good", "bad")[row % 2],
        **changes,
    }
    return [{name: value(row) for name, value in columns.items()} for row in range(count)]


DATA: dict[str, tuple[list[Row], dict[str, Any], list[str]]] = {
    "no text column": (
        make_rows(),
        {"text": "sentence"},
        ["has no column 'sentence'", "its columns are text, label", "set text to one of them"],
    ),
    "no label column": (
        make_rows(),
        {"label": "stars"},
        ["has no column 'stars'", "set label to one of them"],
    ),
    "no split": (
        make_rows(),
        {"search_split": "validation"},
        ["there is no split 'validation'", "there are train", "leave out"],
    ),
    "fractions as classes": (
        make_rows(label=lambda row: row / 7),
        {"kind": "classification"},
        ["label column 'label'", "must be whole numbers or names", "set kind to regression"],
    ),
    "names as numbers": (
        make_rows(),
        {"kind": "regression"},
        ["label column 'label'", "'good' in row 1", "must be finite numbers"],
    ),
    "missing label": (
        make_rows(label=lambda row: None if row == 4 else row % 2),
        {},
        ["label column 'label'", "row 5", "every example needs a label"],
    ),
    "missing text": (
        make_rows(text=lambda row: None if row == 4 else f"word{row}"),
        {},
        ["text column 'text'", "row 5", "every example needs a text"],
    ),
    "one class": (
        make_rows(label=lambda row: "good"),
        {},
        ["has 1 class, must have at least 2", "choose another label column"],
    ),
    "class too rare": (
        make_rows(label=lambda row: "odd" if row == 7 else ("good", "bad")[row % 2]),
        {},
        ["class 'odd' has 0 examples", "at least"],
    ),
    "too few rows": (make_rows(20), {}, ["examples, must have at least 8", "give more data"]),
    "metric of another kind": (
        make_rows(),
        {"metric": "mean_squared_error"},
        ["metric: 'mean_squared_error' scores regression", "choose auto, accuracy, f1"],
    ),
}


@pytest.mark.parametrize("verb", STARTING)
@pytest.mark.parametrize("case", DATA)
def test_data_that_cannot_be_used(
    verb: str, case: str, tmp_path: Path, run_command: RunCommand, write_study: WriteStudy
) -> None:
    rows, settings, words = DATA[case]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {f"trial.task.{name}": value for name, value in settings.items()}
    study = write_study({"trial.task.dataset": str(path), **changes})
    check_refusal(run_command(verb, study), 2, *words)
    check_nothing_done(tmp_path)


@pytest.mark.parametrize("verb", STARTING)
@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("missing.csv", "there is no such file or folder"),
        ("words.txt", "unknown kind of file '.txt'"),
        ("header.csv", "split 'train' is empty; choose another split"),
        ("nothing.csv", "cannot be read as .csv"),
        ("nothing.jsonl", "dataset"),
    ],
)
def test_data_that_is_not_there(
    verb: str,
    name: str,
    rule: str,
    tmp_path: Path,
    run_command: RunCommand,
    write_study: WriteStudy,
) -> None:
    if name != "missing.csv":
        (tmp_path / name).write_text("" if "nothing" in name else "text,label\n")
    study = write_study({"trial.task.dataset": str(tmp_path / name)})
    check_refusal(run_command(verb, study), 2, "dataset", name, rule)
    check_nothing_done(tmp_path)
