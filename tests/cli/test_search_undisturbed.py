"""`distprune search` from the shell to the files, and the same command again."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from distprune import Mask
from distprune.library.history import Outcome
from distprune.library.study_folder import StudyFolder
from distprune.store.store import Store
from tests.cli.conftest import RunCommand
from tests.cli.ended_study import MILESTONES, count_runs, query, read_leaderboard, read_records
from tests.cli.sessions import Ended, finish, start_search
from tests.search.synthetic import read_optuna
from tests.tiny_study import SHAPE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(600),
]


def test_it_ends_well_and_prints_its_leaderboard(undisturbed: Ended) -> None:
    assert undisturbed.code == 0, undisturbed.err
    assert undisturbed.err == ""
    assert "Best masks of tiny" in undisturbed.out
    assert "4 of 4 trials done" in undisturbed.out
    assert "distprune ui" in undisturbed.out
    assert undisturbed.orphans == ()


def test_files_of_the_design_exist(undisturbed: Ended) -> None:
    folder = undisturbed.folder
    names = {str(path.relative_to(folder.root)) for path in folder.root.rglob("*")}
    masks = {
        f"masks/{milestone:g}/{file}"
        for milestone in MILESTONES
        for file in ("mask.safetensors", "evidence.json")
    }
    tops = {"study.yaml", "environment.json", "optuna.journal", "history.jsonl", "mlflow.db"}
    boards = {"leaderboard.json", "leaderboard.csv", "report/study.png"}
    assert masks | tops | boards <= names
    assert (folder.storage / "store").is_dir()
    assert not [name for name in names if name.endswith((".tmp", ".part", ".lock"))]


def test_masks_load_and_reach_their_milestones(undisturbed: Ended) -> None:
    folder = undisturbed.folder
    for milestone, row in zip(MILESTONES, read_leaderboard(folder)["rows"], strict=True):
        mask = Mask.load(folder.mask(milestone))
        assert mask.matches(SHAPE)
        assert min(mask.sparsity("head"), mask.sparsity("neuron")) >= milestone - 1e-9
        assert row["sparsities"]["heads"] == pytest.approx(mask.sparsity("head"))
        assert mask.metadata["trial"] == row["trial"]
        evidence = json.loads(folder.evidence(milestone).read_text())
        assert evidence["metrics"]["search"] == row["search_metric"]
        store = Store(str(folder.store))
        assert store.has(evidence["lineage"]["weights"])


def test_leaderboards_agree(undisturbed: Ended, run_command: RunCommand) -> None:
    folder = undisturbed.folder
    board = read_leaderboard(folder)
    assert without_stages(run_command("results", folder.root, "--json").out) == board
    with folder.leaderboard_csv.open() as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, board["rows"], strict=True):
        assert int(row["trial"]) == expected["trial"]
        assert float(row["search_metric"]) == expected["search_metric"]
        assert float(row["report_metric"]) == expected["report_metric"]
    records = read_records(folder)
    for row in board["rows"]:
        level = records[row["trial"]].levels[row["level"]]
        assert level.metric == row["search_metric"]
        reached = [
            level.metric
            for record in records.values()
            for level in record.levels[1:]
            if level.sparsity >= row["milestone"] - 1e-9
        ]
        assert row["search_metric"] == max(reached)


def test_hopeless_trial_was_stopped(undisturbed: Ended) -> None:
    """Without retraining a model falls behind; what it would have cost was saved."""
    records = read_records(undisturbed.folder)
    outcomes = {record.end.outcome for record in records.values() if record.end}
    assert outcomes == {Outcome.COMPLETED, Outcome.STOPPED}
    stopped = [r for r in records.values() if r.end and r.end.outcome is Outcome.STOPPED]
    assert all(0 < len(record.reports) < len(MILESTONES) for record in stopped)


def test_tracked_runs_are_nested(undisturbed: Ended) -> None:
    folder = undisturbed.folder
    assert count_runs(folder) == {"study": 1} | {f"trial {n}": 1 for n in range(4)}
    (study,) = query(
        folder, "SELECT run_uuid FROM tags WHERE key = 'distprune.kind' AND value = 'study'"
    )
    parents = query(folder, "SELECT value FROM tags WHERE key = 'mlflow.parentRunId'")
    assert parents == [study] * 4
    assert query(folder, "SELECT DISTINCT status FROM runs") == [("FINISHED",)]


def test_same_command_again_trains_nothing_and_changes_nothing(undisturbed: Ended) -> None:
    folder = undisturbed.folder
    before = take_inventory(folder)
    with start_search(folder.storage.parent / "study.yaml", "--json") as session:
        ended = finish(session)
    assert ended.code == 0, ended.err
    after = take_inventory(folder)
    assert {name for name in before | after if before.get(name) != after.get(name)} == set()
    assert without_stages(ended.out) == read_leaderboard(folder)
    assert "trials done already: 4" in ended.err


def without_stages(printed: str) -> dict[str, Any]:
    """Return the leaderboard as it was printed, without what its stages cost."""
    values: dict[str, Any] = json.loads(printed)
    stages = values.pop("stages")
    assert stages["num_computed"] > stages["num_reused"] > 0
    return values


def take_inventory(folder: StudyFolder) -> dict[str, Any]:
    """Return a digest of every file of study and store, all that is tracked, all proposals."""
    files = {
        str(path.relative_to(folder.storage)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.storage.rglob("*"))
        if path.is_file() and not is_of_the_session(path, folder)
    }
    tables = ("runs", "params", "metrics", "tags", "latest_metrics", "experiments")
    tracked = {table: query(folder, f"SELECT * FROM {table}") for table in tables}
    return files | tracked | {"proposals": list_proposals(folder)}


def list_proposals(folder: StudyFolder) -> list[tuple[Any, ...]]:
    """Return what Optuna's journal, which every session begins anew, says of all trials."""
    return [
        (trial.number, trial.state, trial.params, trial.values, trial.intermediate_values)
        for trial in read_optuna(folder.optuna_journal, "tiny")
    ]


def is_of_the_session(path: Path, folder: StudyFolder) -> bool:
    """Say whether a file tells of the driver that is at work, or is compared by its content."""
    compared = (folder.lease, folder.tracking_database, folder.optuna_journal)
    return path in compared or folder.ray in path.parents
