"""The leaderboard: the best level of all trials at every milestone, chosen on the search split."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distprune.core.cost import Sparsities
from distprune.core.selection import ROUNDING
from distprune.errors import StorageError
from distprune.library.history import TrialRecord
from distprune.library.study_folder import StudyFolder
from distprune.trial.results import LevelResult

SCHEMA = "distprune.leaderboard/1"


@dataclass(frozen=True)
class Candidate:
    """One level of one trial."""

    trial: TrialRecord
    result: LevelResult


@dataclass(frozen=True)
class LeaderboardRow:
    """The best model at one milestone.

    Attributes:
        milestone: Sparsity that the model reaches at least.
        trial: Number of its trial.
        level: Its level in that trial.
        search_metric: Metric on the split that it was chosen on.
        report_metric: Metric on the split that no decision looked at; None = not measured yet.
        retention: Share of the dense model's advantage over the constant predictor, on `search`.
        sparsities: Its sparsity in heads, neurons, encoder parameters and MACs.
        parameters: The searched settings of its trial.
    """

    milestone: float
    trial: int
    level: int
    search_metric: float
    report_metric: float | None
    retention: float
    sparsities: Sparsities
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Leaderboard:
    """The best models of a study.

    Attributes:
        study: Name of the study.
        metric: Name of the metric.
        higher_is_better: Direction of the metric.
        dense: Metric of the dense fine-tuned model by split, `search` and `report`.
        floor: Metric of the constant predictor by split.
        outcomes: Number of trials by outcome.
        pretrained_objective: What the pre-trained importance was measured with, if anything.
        rows: One row a milestone, milestones increasing.
    """

    study: str
    metric: str
    higher_is_better: bool
    dense: Mapping[str, float]
    floor: Mapping[str, float]
    outcomes: Mapping[str, int]
    pretrained_objective: str | None
    rows: Sequence[LeaderboardRow]

    def to_json(self) -> str:
        """Return the leaderboard as JSON text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"

    def to_csv(self) -> str:
        """Return one line a milestone, searched settings in the last columns."""
        names = sorted({name for row in self.rows for name in row.parameters})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        fixed = ["milestone", "trial", "level", "search_metric", "report_metric", "retention"]
        costs = list(Sparsities.__dataclass_fields__)
        writer.writerow([*fixed, *(f"sparsity_{cost}" for cost in costs), *names])
        for row in self.rows:
            values = [getattr(row, name) for name in fixed]
            values += [getattr(row.sparsities, cost) for cost in costs]
            writer.writerow([*values, *(row.parameters.get(name, "") for name in names)])
        return text.getvalue()


def choose_best(
    trials: Iterable[TrialRecord], milestone: float, higher_is_better: bool
) -> Candidate | None:
    """Return the best level of all trials whose sparsity reaches `milestone`.

    Levels beyond the milestone compete too. Ties go to the higher sparsity, then to the earlier
    trial.
    """
    candidates = [
        Candidate(trial, result)
        for trial in trials
        for result in trial.levels
        if result.level > 0 and result.sparsity >= milestone - ROUNDING
    ]
    sign = 1.0 if higher_is_better else -1.0
    return max(
        candidates,
        key=lambda c: (sign * c.result.metric, c.result.sparsity, -c.trial.number),
        default=None,
    )


def read_leaderboard(folder: StudyFolder) -> Leaderboard:
    """Read the leaderboard of a study.

    Raises:
        StorageError: There is none, or it cannot be read.
    """
    path = folder.leaderboard_json
    try:
        values = json.loads(path.read_text())
        if values.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        rows = [
            LeaderboardRow(**{**row, "sparsities": Sparsities(**row["sparsities"])})
            for row in values.pop("rows")
        ]
        return Leaderboard(**values, rows=rows)
    except FileNotFoundError:
        raise StorageError(
            f"study {folder.reference}: has no leaderboard; name a study that `distprune search` "
            "finished, or run it again to go on"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"leaderboard {path}: cannot be read ({error}); run `distprune search` again and it "
            "is written anew"
        ) from error
