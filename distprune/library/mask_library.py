"""The mask library: the best mask at every milestone as a file, with its evidence beside it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from distprune.core.atomic_file import write_file
from distprune.library.leaderboard import Candidate, Leaderboard, LeaderboardRow
from distprune.library.study_folder import StudyFolder
from distprune.trial.context import TrialContext


def write_library(
    folder: StudyFolder,
    leaderboard: Leaderboard,
    best: dict[float, Candidate],
    context: TrialContext,
) -> None:
    """Write the leaderboard and, for each of its milestones, the mask and its evidence.

    Raises:
        StorageError: A file cannot be written; each one is whole or not there.
    """
    for row in leaderboard.rows:
        metadata = describe_mask(leaderboard, row, best[row.milestone], context)
        mask = best[row.milestone].result.mask.with_metadata(metadata)
        mask.save(folder.mask(row.milestone))
        write_file(folder.evidence(row.milestone), json.dumps(metadata, indent=2) + "\n")
    write_file(folder.leaderboard_csv, leaderboard.to_csv())
    write_file(folder.leaderboard_json, leaderboard.to_json())


def describe_mask(
    leaderboard: Leaderboard, row: LeaderboardRow, candidate: Candidate, context: TrialContext
) -> dict[str, Any]:
    """Return what a mask file says about its mask."""
    result = candidate.result
    return {
        "checkpoint": {
            "name": context.checkpoint.name,
            "fingerprint": context.checkpoint.fingerprint,
            "model_type": context.checkpoint.model_type,
        },
        "shape": asdict(context.shape),
        "sparsities": asdict(row.sparsities),
        "study": leaderboard.study,
        "trial": row.trial,
        "level": row.level,
        "milestone": row.milestone,
        "parameters": dict(row.parameters),
        "rewinding": candidate.trial.start.spec["pruning"]["rewinding"],
        "lineage": asdict(result.lineage),
        "metrics": {
            "name": leaderboard.metric,
            "search": row.search_metric,
            "report": row.report_metric,
            "dense": dict(leaderboard.dense),
            "constant_predictor": dict(leaderboard.floor),
            "retention": row.retention,
        },
    }
