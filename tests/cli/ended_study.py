"""What a search has left: its history, its leaderboard, its tracked runs."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from distprune.library.history import History, MilestoneReached, TrialRecord, read_trials
from distprune.library.study_folder import StudyFolder

MILESTONES = (0.2, 0.4, 0.6)


def count_reports(folder: StudyFolder) -> int:
    """Count the milestones that trials have reached so far."""
    return sum(isinstance(event, MilestoneReached) for event in History(folder.history).events())


def read_leaderboard(folder: StudyFolder) -> dict[str, Any]:
    """Read the leaderboard as any program would."""
    values: dict[str, Any] = json.loads(folder.leaderboard_json.read_text())
    return values


def read_records(folder: StudyFolder) -> dict[int, TrialRecord]:
    """Read what the history says about each trial."""
    return read_trials(History(folder.history).events())


def describe_trials(folder: StudyFolder) -> list[Any]:
    """Return what the history says about each trial, but when and how long."""
    return [
        (
            number,
            record.start.parameters,
            record.end and record.end.outcome,
            [
                (event.report.milestone, event.report.objective, event.report.level)
                for event in record.reports.values()
            ],
            [(level.level, level.metric, level.mask.digest) for level in record.levels],
        )
        for number, record in read_records(folder).items()
    ]


def query(folder: StudyFolder, statement: str) -> list[tuple[Any, ...]]:
    """Ask a study's MLflow database."""
    connection = sqlite3.connect(f"file:{folder.tracking_database}?mode=ro", uri=True)
    try:
        return sorted(connection.execute(statement).fetchall())
    finally:
        connection.close()


def count_runs(folder: StudyFolder) -> dict[str, int]:
    """Count the tracked runs by the trial that they are of; `study` is the parent."""
    kinds = "SELECT run_uuid, value FROM tags WHERE key = 'distprune.kind'"
    trials = dict(query(folder, "SELECT run_uuid, value FROM tags WHERE key = 'distprune.trial'"))
    counts: dict[str, int] = {}
    for run, kind in query(folder, kinds):
        name = kind if kind == "study" else f"trial {trials[run]}"
        counts[name] = counts.get(name, 0) + 1
    return counts


def tracked_values(folder: StudyFolder) -> list[tuple[Any, ...]]:
    """Return every metric of every trial, with its step, but what it cost."""
    return query(
        folder,
        "SELECT tags.value, metrics.key, metrics.step, metrics.value FROM metrics "
        "JOIN tags ON tags.run_uuid = metrics.run_uuid AND tags.key = 'distprune.trial' "
        "WHERE metrics.key != 'level/seconds' AND metrics.key NOT LIKE 'stages/%'",
    )
