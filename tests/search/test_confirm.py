"""Which masks are confirmed, and what is refused before anything is started."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from distprune.core.mask import Mask
from distprune.errors import ConfigError, StorageError, StudyExistsError
from distprune.library.history import History
from distprune.library.leaderboard import Leaderboard, LeaderboardRow
from distprune.library.study_folder import StudyFolder
from distprune.search.confirm import (
    ConfirmRequest,
    check_num_seeds,
    choose_rows,
    find_best_masks,
    read_inputs,
    resolve_inputs,
    run_confirmation,
)
from distprune.search.driver_lease import hold_study
from distprune.search.study_file import check_study
from distprune.store.store import Store
from tests.cli.tiny_search import tiny_values
from tests.library.graded import make_row
from tests.search.test_confirmer import Watcher
from tests.tracking.events import SHAPE, run_trial

DENSE = Mask.dense(SHAPE)


def make_board(*places: tuple[float, int, int]) -> Leaderboard:
    rows = [row_at(*place) for place in places]
    dense = {"search": 0.9, "report": 0.9}
    return Leaderboard("mine", "accuracy", True, dense, {}, {"completed": 1}, None, rows)


def row_at(milestone: float, trial: int, level: int) -> LeaderboardRow:
    row = make_row(Mask.unpack("1x1:gA==|1x1:gA=="), milestone, trial, level)
    return replace(row, parameters={})


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path, "mine")
    history = History(folder.history)
    for number in range(2):
        for event in run_trial(number):
            history.append(event)
    folder.leaderboard_json.write_text(make_board((0.25, 0, 1), (0.5, 1, 2)).to_json())
    return folder


@pytest.mark.parametrize("num_seeds", [1, 0, -3])
def test_seeds(num_seeds: int) -> None:
    with pytest.raises(ConfigError, match=f"seeds: {num_seeds}; .* two at least"):
        check_num_seeds(num_seeds)
    check_num_seeds(2)


def test_milestones() -> None:
    board = make_board((0.1, 0, 1), (0.3, 0, 2), (0.5, 1, 2))
    assert [row.milestone for row in choose_rows(board, ())] == [0.1, 0.3, 0.5]
    assert [row.milestone for row in choose_rows(board, (0.5, 0.1, 0.5))] == [0.1, 0.5]
    assert [row.milestone for row in choose_rows(board, (0.1 + 0.2,))] == [0.3]
    with pytest.raises(ConfigError, match=r"milestone: 0\.4; .* at 0\.1, 0\.3, 0\.5; choose"):
        choose_rows(board, (0.1, 0.4))


def test_milestones_of_one_level_are_one_mask(folder: StudyFolder) -> None:
    board = make_board((0.1, 0, 1), (0.25, 0, 1), (0.5, 1, 2))
    one, two = find_best_masks(folder, board.rows)
    assert (one.trial, one.level, one.milestones) == (0, 1, (0.1, 0.25))
    assert (two.trial, two.level, two.milestones) == (1, 2, (0.5,))
    assert one.mask.sparsity("neuron") == 0.25
    assert two.mask.sparsity("neuron") == 0.5
    assert two.spec.pruning.target_sparsity == 0.5


@pytest.mark.parametrize("place", [(0.5, 1, 3), (0.5, 7, 1)])
def test_level_that_the_history_lacks(place: tuple[float, int, int], folder: StudyFolder) -> None:
    with pytest.raises(StorageError, match=f"lacks level {place[2]} of trial {place[1]}"):
        find_best_masks(folder, make_board(place).rows)


def test_study_that_a_driver_works_on(folder: StudyFolder) -> None:
    with (
        hold_study(folder.lease, folder.name),
        pytest.raises(StudyExistsError, match="is working on it"),
    ):
        run_confirmation(ConfirmRequest(folder), Watcher())


def test_study_without_a_leaderboard(folder: StudyFolder) -> None:
    folder.leaderboard_json.unlink()
    with pytest.raises(StorageError, match="has no leaderboard"):
        run_confirmation(ConfirmRequest(folder), Watcher())


def test_inputs_that_cannot_be_read(folder: StudyFolder) -> None:
    for text in (None, "", "[]"):
        if text is not None:
            folder.environment.write_text(text)
        with pytest.raises(StorageError, match=r"environment\.json cannot be read"):
            read_inputs(folder)


@pytest.mark.parametrize("changed", ["checkpoint", "data"])
def test_inputs_that_changed_since(
    changed: str, tmp_path: Path, mlm_checkpoint: Path, word_task: Path, folder: StudyFolder
) -> None:
    study = check_study(tiny_values(tmp_path, mlm_checkpoint, word_task))
    store = Store(str(tmp_path / "store"))
    folder.environment.write_text("{}")
    context = resolve_inputs(folder, study, [], store)
    inputs = {
        "checkpoint": context.checkpoint.fingerprint,
        "data": context.task.source_fingerprint,
    }
    folder.environment.write_text(json.dumps({"inputs": inputs}))
    assert resolve_inputs(folder, study, [], store) == context
    folder.environment.write_text(json.dumps({"inputs": {**inputs, changed: "f" * 64}}))
    with pytest.raises(ConfigError, match=f"'mine': {changed} changed since it began"):
        resolve_inputs(folder, study, [], store)
