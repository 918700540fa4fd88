"""The library of masks: files whole, with what speaks for each mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distprune.core.cost import measure_sparsities
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import MaskError, StorageError
from distprune.library.leaderboard import Candidate, Leaderboard, LeaderboardRow, read_leaderboard
from distprune.library.mask_library import write_library
from distprune.library.study_folder import StudyFolder
from tests.library.records import make_trial
from tests.trial.canned import CONTEXT
from tests.trial.results import make_result
from tests.trial.studies import keep

MASKS = {0.25: keep(6, 30), 0.5: keep(4, 20)}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "storage", "tiny")


@pytest.fixture
def best() -> dict[float, Candidate]:
    trial = make_trial(7, [], **{"pruning.mixing.coefficient": 0.3})
    return {
        milestone: Candidate(trial, make_result(level, milestone, 0.8, packed_mask=mask.pack()))
        for level, (milestone, mask) in enumerate(MASKS.items(), start=1)
    }


@pytest.fixture
def board(best: dict[float, Candidate]) -> Leaderboard:
    rows = [
        LeaderboardRow(
            milestone=milestone,
            trial=candidate.trial.number,
            level=candidate.result.level,
            search_metric=candidate.result.metric,
            report_metric=0.79,
            retention=0.75,
            sparsities=measure_sparsities(CONTEXT.shape, candidate.result.mask, 8.5),
            parameters=candidate.trial.start.parameters,
        )
        for milestone, candidate in best.items()
    ]
    return Leaderboard(
        study="tiny",
        metric="accuracy",
        higher_is_better=True,
        dense={"search": 0.9, "report": 0.88},
        floor={"search": 0.5, "report": 0.5},
        outcomes={"completed": 1},
        pretrained_objective="mlm",
        rows=rows,
    )


def list_files(folder: StudyFolder) -> list[str]:
    return sorted(str(p.relative_to(folder.root)) for p in folder.root.rglob("*") if p.is_file())


def test_files_of_the_library(
    folder: StudyFolder, board: Leaderboard, best: dict[float, Candidate]
) -> None:
    write_library(folder, board, best, CONTEXT)
    assert list_files(folder) == [
        "leaderboard.csv",
        "leaderboard.json",
        *("masks/0.25/evidence.json", "masks/0.25/mask.safetensors"),
        *("masks/0.5/evidence.json", "masks/0.5/mask.safetensors"),
    ]
    assert read_leaderboard(folder) == board
    assert folder.leaderboard_csv.read_text() == board.to_csv()


def test_masks_come_back_with_what_speaks_for_them(
    folder: StudyFolder, board: Leaderboard, best: dict[float, Candidate]
) -> None:
    write_library(folder, board, best, CONTEXT)
    for milestone, expected in MASKS.items():
        mask = Mask.load(folder.mask(milestone))
        assert mask == expected
        assert mask.matches(CONTEXT.shape)
        metadata: Any = mask.metadata
        assert json.loads(folder.evidence(milestone).read_text()) == metadata
        assert metadata["checkpoint"] == {
            "name": "tiny",
            "fingerprint": "c" * 64,
            "model_type": "bert",
        }
        assert metadata["shape"]["num_heads"] == 4
        assert metadata["sparsities"]["heads"] == mask.sparsity(UnitKind.HEAD)
        assert (metadata["study"], metadata["trial"]) == ("tiny", 7)
        assert metadata["milestone"] == milestone
        assert metadata["level"] == best[milestone].result.level
        assert metadata["parameters"] == {"pruning.mixing.coefficient": 0.3}
        assert metadata["rewinding"] == 0.5
        lineage = best[milestone].result.lineage
        assert metadata["lineage"]["weights"] == lineage.weights
        assert metadata["lineage"]["evidence"]["pretrained_objective"] == "mlm"
        assert metadata["metrics"] == {
            "name": "accuracy",
            "search": 0.8,
            "report": 0.79,
            "dense": {"search": 0.9, "report": 0.88},
            "constant_predictor": {"search": 0.5, "report": 0.5},
            "retention": 0.75,
        }


def test_a_library_is_written_again_over_the_old_one(
    folder: StudyFolder, board: Leaderboard, best: dict[float, Candidate]
) -> None:
    write_library(folder, board, best, CONTEXT)
    files = list_files(folder)
    better = Candidate(
        best[0.5].trial, make_result(2, 0.5, 0.8, packed_mask=keep(4, 20, seed=9).pack())
    )
    write_library(folder, board, best | {0.5: better}, CONTEXT)
    assert list_files(folder) == files
    assert Mask.load(folder.mask(0.5)) == keep(4, 20, seed=9)
    assert Mask.load(folder.mask(0.25)) == MASKS[0.25]


def test_a_milestone_without_a_mask(folder: StudyFolder) -> None:
    with pytest.raises(MaskError, match="name a file that exists"):
        Mask.load(folder.mask(0.75))


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, board: Leaderboard, best: dict[float, Candidate]
) -> None:
    (tmp_path / "tiny").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        write_library(StudyFolder(tmp_path, "tiny"), board, best, CONTEXT)


def test_the_mask_of_a_trial_stays_without_metadata(
    folder: StudyFolder, board: Leaderboard, best: dict[float, Candidate]
) -> None:
    write_library(folder, board, best, CONTEXT)
    assert dict(best[0.5].result.mask.metadata) == {}
    assert isinstance(best[0.5].result.mask, Mask)
