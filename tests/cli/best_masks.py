"""A study that has ended, as far as its settings, leaderboard and masks tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from distprune.core.cost import measure_sparsities
from distprune.library.leaderboard import Candidate, Leaderboard, LeaderboardRow
from distprune.library.mask_library import write_library
from distprune.library.study_folder import StudyFolder
from tests.library.records import make_trial
from tests.trial.canned import CONTEXT
from tests.trial.results import make_result
from tests.trial.studies import keep

MASKS = {0.25: keep(6, 30), 0.5: keep(4, 20)}
STUDY_ID = "5" * 32


def write_ended_study(
    storage: Path, dataset: str = "words.csv", tracking: str | None = None
) -> StudyFolder:
    """Write the files of the study `tiny`; its best masks are `MASKS`."""
    folder = StudyFolder(storage, "tiny")
    trial = make_trial(7, [], **{"pruning.mixing.coefficient": 0.3})
    best = {
        milestone: Candidate(trial, make_result(level, milestone, 0.8, packed_mask=mask.pack()))
        for level, (milestone, mask) in enumerate(MASKS.items(), start=1)
    }
    write_library(folder, make_board(best), best, CONTEXT)
    values = make_settings(storage, dataset, tracking)
    folder.configuration.write_text(yaml.safe_dump(values))
    folder.environment.write_text(json.dumps({"study_id": STUDY_ID}))
    return folder


def make_settings(storage: Path, dataset: str, tracking: str | None) -> dict[str, Any]:
    """Return the settings of the study."""
    return {
        "name": "tiny",
        "storage": str(storage),
        "milestones": list(MASKS),
        "tracking": {"uri": tracking},
        "trial": {
            "checkpoint": "tiny",
            "task": {"dataset": dataset, "max_length": 16},
            "fine_tuning": {"epochs": 6.0},
            "pruning": {"mixing": {"coefficient": {"uniform": [0.0, 1.0]}}, "rewinding": 0.5},
        },
    }


def make_board(best: dict[float, Candidate]) -> Leaderboard:
    """Return the leaderboard of the best masks."""
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
