"""The leaderboard: chosen at equal sparsity, from every level of every trial."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from distprune.core.cost import Sparsities
from distprune.errors import StorageError
from distprune.library.leaderboard import (
    Leaderboard,
    LeaderboardRow,
    choose_best,
    read_leaderboard,
)
from distprune.library.study_folder import StudyFolder
from tests.library.records import make_trial


def choose(
    *trials: Any, milestone: float = 0.3, higher_is_better: bool = True
) -> tuple[int, int] | None:
    best = choose_best(trials, milestone, higher_is_better)
    return None if best is None else (best.trial.number, best.result.level)


def test_the_best_metric_at_the_milestone_wins() -> None:
    trials = make_trial(0, [(0.3, 0.8)]), make_trial(1, [(0.3, 0.9)]), make_trial(2, [(0.3, 0.7)])
    assert choose(*trials) == (1, 1)
    assert choose(*trials, higher_is_better=False) == (2, 1)


def test_levels_below_the_milestone_do_not_compete() -> None:
    assert choose(make_trial(0, [(0.29, 0.99), (0.3, 0.5)])) == (0, 2)
    assert choose(make_trial(0, [(0.29, 0.99)])) is None


def test_rounding_does_not_exclude_a_level() -> None:
    assert choose(make_trial(0, [(0.1 * 3, 0.5)])) == (0, 1)
    assert choose(make_trial(0, [(0.3 - 1e-12, 0.5)])) == (0, 1)


def test_levels_beyond_the_milestone_compete() -> None:
    assert choose(make_trial(0, [(0.3, 0.6)]), make_trial(1, [(0.3, 0.5), (0.5, 0.7)])) == (1, 2)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_dense_level_never_competes(higher_is_better: bool) -> None:
    trial = make_trial(0, [(0.3, 0.5)])
    assert choose(trial, milestone=0.0, higher_is_better=higher_is_better) == (0, 1)
    assert choose(make_trial(0, []), milestone=0.0) is None
    assert choose(milestone=0.0) is None


def test_ties_go_to_the_higher_sparsity_then_to_the_earlier_trial() -> None:
    sparser = make_trial(5, [(0.4, 0.8)])
    assert choose(make_trial(0, [(0.3, 0.8)]), sparser) == (5, 1)
    assert choose(make_trial(2, [(0.3, 0.8)]), make_trial(1, [(0.3, 0.8)])) == (1, 1)
    assert choose(make_trial(1, [(0.3, 0.8)]), make_trial(2, [(0.3, 0.8)])) == (1, 1)
    lower = make_trial(0, [(0.3, 0.8)]), sparser
    assert choose(*lower, higher_is_better=False) == (5, 1)


def make_row(milestone: float, **changes: Any) -> LeaderboardRow:
    values: dict[str, Any] = {
        "milestone": milestone,
        "trial": 3,
        "level": 2,
        "search_metric": 1 / 3,
        "report_metric": 0.25,
        "retention": 0.9,
        "sparsities": Sparsities(heads=0.5, neurons=0.4, encoder_parameters=0.45, macs=0.46),
        "parameters": {"pruning.mixing.coefficient": 0.1, "pruning.rewinding": "continue"},
    }
    return LeaderboardRow(**values | changes)


def make_leaderboard(*rows: LeaderboardRow) -> Leaderboard:
    return Leaderboard(
        study="tiny",
        metric="accuracy",
        higher_is_better=True,
        dense={"search": 0.9, "report": 0.88},
        floor={"search": 0.5, "report": 0.51},
        outcomes={"completed": 3, "stopped": 5},
        pretrained_objective="mlm",
        rows=list(rows),
    )


BOARD = make_leaderboard(
    make_row(0.1), make_row(0.5, report_metric=None, parameters={"retraining.epochs": 1.5})
)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    study = StudyFolder(tmp_path, "tiny")
    study.root.mkdir()
    return study


@pytest.mark.parametrize("board", [BOARD, make_leaderboard()], ids=["rows", "empty"])
def test_json_is_read_back(folder: StudyFolder, board: Leaderboard) -> None:
    folder.leaderboard_json.write_text(board.to_json())
    assert read_leaderboard(folder) == board


def test_csv_has_a_line_for_each_milestone() -> None:
    awkward = make_row(0.7, parameters={"task.text": 'a "quoted", text', "retraining.epochs": 2})
    board = make_leaderboard(*BOARD.rows, awkward)
    rows = list(csv.DictReader(io.StringIO(board.to_csv())))
    assert [row["milestone"] for row in rows] == ["0.1", "0.5", "0.7"]
    assert list(rows[0])[:6] == [
        *("milestone", "trial", "level", "search_metric", "report_metric", "retention"),
    ]
    assert list(rows[0])[10:] == [
        *("pruning.mixing.coefficient", "pruning.rewinding"),
        *("retraining.epochs", "task.text"),
    ]
    assert float(rows[0]["search_metric"]) == 1 / 3
    assert rows[0]["sparsity_heads"] == "0.5"
    assert rows[0]["sparsity_macs"] == "0.46"
    assert rows[1]["report_metric"] == ""
    assert rows[1]["pruning.rewinding"] == ""
    assert rows[2]["task.text"] == 'a "quoted", text'


def test_a_study_without_a_leaderboard(folder: StudyFolder) -> None:
    with pytest.raises(StorageError, match="has no leaderboard; name a study"):
        read_leaderboard(folder)


def damage(**changes: Any) -> str:
    return json.dumps(json.loads(BOARD.to_json()) | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        BOARD.to_json()[:-20],
        "[]",
        "3",
        damage(schema="distprune.leaderboard/99"),
        damage(rows=[{"milestone": 0.1}]),
        damage(rows=None),
        damage(surprise=1),
        json.dumps({"rows": []}),
        "\udcff",
    ],
    ids=["empty", "cut", "list", "number", "schema", "row", "rows", "name", "bare", "bytes"],
)
def test_a_damaged_leaderboard_is_named(folder: StudyFolder, text: str) -> None:
    folder.leaderboard_json.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StorageError, match="run `distprune search` again") as caught:
        read_leaderboard(folder)
    assert str(folder.leaderboard_json) in str(caught.value)
