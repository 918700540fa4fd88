"""Every kind of difference between a study and its twin is found and named."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from distprune.library.study_folder import StudyFolder
from distprune.store.store import Store
from scripts.chaos.evidence import (
    Evidence,
    describe_difference,
    find_differences,
    find_litter,
    read_proposals,
)

TWIN = Evidence(
    trials=[[0, {"coefficient": 0.5}, "completed"]],
    leaderboard={"tiny/leaderboard.json": "aa", "tiny/leaderboard.csv": "bb"},
    masks={"0.2/mask.safetensors": "cc"},
    runs=[["tiny", "", "FINISHED"], ["trial-000", "tiny", "FINISHED"]],
    proposals=[["COMPLETE", [["coefficient", 0.5]], [[1, 0.9]]]],
    unended=[],
    stages=["k1", "k2", "k3"],
    litter=[],
)


def test_a_study_is_equal_to_its_twin() -> None:
    assert find_differences(TWIN, TWIN) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("trials", [[0, {"coefficient": 0.5}, "failed"]], "failed instead of completed"),
        ("leaderboard", {"tiny/leaderboard.json": "aa"}, "None instead of bb"),
        ("masks", {"0.2/mask.safetensors": "dd"}, "0.2/mask.safetensors: dd instead of cc"),
        ("runs", [*TWIN.runs, TWIN.runs[1]], "3 instead of 2"),
        ("runs", [TWIN.runs[0], ["trial-000", "", "FINISHED"]], " instead of tiny"),
        ("proposals", [], "0 instead of 1; more: []; missed: [\"['COMPLETE'"),
        ("unended", ["4 RUNNING"], "more: ['4 RUNNING']"),
        ("stages", ["k1", "k2", "k3", "k4"], "more: ['k4']"),
        ("stages", ["k1", "k2"], "missed: ['k3']"),
        ("litter", ["store/temporary/x"], "more: ['store/temporary/x']"),
    ],
)
def test_each_difference_is_named(name: str, value: Any, words: str) -> None:
    (line,) = find_differences(replace(TWIN, **{name: value}), TWIN)
    assert line.startswith(f"{name}: ")
    assert words in line


def test_nothing_is_left_out() -> None:
    broken = Evidence(**{field.name: "broken" for field in fields(Evidence)})
    found = find_differences(broken, TWIN)
    assert [line.split(":")[0] for line in found] == [field.name for field in fields(Evidence)]


def test_what_was_damaged_is_missed_only_where_it_is_needed() -> None:
    assert find_differences(replace(TWIN, stages=["k1", "k3"]), TWIN, ["k2"]) == []
    assert find_differences(TWIN, TWIN, ["k2"]) == []
    assert find_differences(replace(TWIN, stages=["k1"]), TWIN, ["k2"]) != []


def test_the_first_difference_deep_inside() -> None:
    found, wanted = [1, {"a": [2, {"b": 3}]}], [1, {"a": [2, {"b": 4}]}]
    assert describe_difference(found, wanted) == "a: b: 3 instead of 4"
    assert len(describe_difference("x" * 1000, "y")) < 200


def test_litter(tmp_path: Path) -> None:
    folder, temporary = StudyFolder(tmp_path / "studies", "tiny"), tmp_path / "tmp"
    store = Store(str(folder.store))
    key = "0" * 64
    with store.lease(key):
        store.commit(key, lambda place: (place / "file").write_text("x"), {})
    (folder.ray / "session").mkdir(parents=True)
    (folder.ray / "session" / ".validate_storage_marker").touch()
    folder.lease.touch()
    folder.tracking_database.touch()
    temporary.mkdir()
    (temporary / "ray").mkdir()
    assert list(find_litter(folder, [temporary])) == []
    for name in ("store/temporary/host~1~2~ab", "store/leases/ab.json"):
        (folder.storage / name).parent.mkdir(exist_ok=True)
        (folder.storage / name).touch()
    for name in (".leaderboard.json.x1", "mlflow.db-journal", "optuna.journal.lock"):
        (folder.root / name).touch()
    (temporary / "distprune-x").mkdir()
    assert sorted(find_litter(folder, [temporary])) == [
        "distprune-x",
        "store/leases/ab.json",
        "store/temporary/host~1~2~ab",
        "tiny/.leaderboard.json.x1",
        "tiny/mlflow.db-journal",
        "tiny/optuna.journal.lock",
    ]


def test_failed_proposals_do_not_count_and_unended_ones_are_told(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "tiny")
    folder.root.mkdir()
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder.optuna_journal)))
    study = optuna.create_study(study_name="tiny", storage=storage, direction="maximize")
    for state in ("complete", "pruned", "fail"):
        trial = study.ask()
        trial.suggest_float("coefficient", 0.0, 1.0)
        trial.report(0.5, step=1)
        value = 0.5 if state == "complete" else None
        study.tell(trial, value, state=optuna.trial.TrialState[state.upper()])
    study.ask()
    before = folder.optuna_journal.read_bytes()
    ended, unended = read_proposals(folder)
    assert [state for state, _, _ in ended] == ["COMPLETE", "PRUNED"]
    assert all(values == [(1, 0.5)] for _, _, values in ended)
    assert unended == ["3 RUNNING"]
    assert folder.optuna_journal.read_bytes() == before
