"""Wall time of the same configurations in the hand-written script and in distprune."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from distprune.library.study_folder import StudyFolder
from scripts.benchmark.arms import EndedArm
from scripts.benchmark.configurations import TWELVE, fixed_study
from scripts.benchmark.results import Limit, Row, Values
from scripts.benchmark.settings import Settings
from scripts.benchmark.spread import summarise
from scripts.benchmark.studies import (
    Trial,
    read_distprune,
    read_naive,
    run_distprune,
    run_naive,
    storage,
)

ARM = "distprune"


def measure(settings: Settings) -> Values:
    """Run both arms without early stopping, and compare what they took and what they found."""
    naive = run_naive(settings, "naive", TWELVE[: settings.configurations])
    ours = run_study(settings)
    theirs_trials, _ = read_naive(naive)
    ours_trials = read_distprune(StudyFolder(storage(settings, ARM), ARM))
    comparison = compare(theirs_trials, ours_trials)
    count = settings.configurations
    ratio = naive.seconds / ours.seconds
    rows = [
        Row(
            f"naive wall / distprune wall, {count} configurations",
            summarise([ratio]),
            Limit(">=", 6, "aim 12"),
        ),
        Row(f"naive wall, {count} configurations, s", summarise([naive.seconds])),
        Row(f"distprune wall, {count} configurations, s", summarise([ours.seconds])),
        Row("accuracy at the target, naive", summarise(comparison["naive"])),
        Row("accuracy at the target, distprune", summarise(comparison["distprune"])),
        Row(
            "accuracy at the target, distprune - naive",
            summarise(comparison["differences"]),
        ),
    ]
    seconds = {"naive_seconds": naive.seconds, "distprune_seconds": ours.seconds}
    return Values(rows, {**seconds, "ratio": ratio, **comparison})


def run_study(settings: Settings) -> EndedArm:
    """Run distprune's arm, or find that it has run."""
    configurations = TWELVE[: settings.configurations]
    values = fixed_study(settings, ARM, storage(settings, ARM), configurations)
    return run_distprune(settings, ARM, values)


def compare(naive: Sequence[Trial], ours: Sequence[Trial]) -> dict[str, Any]:
    """Compare the accuracies of both arms, configuration by configuration.

    Raises:
        ValueError: An arm lacks a configuration, or a trial of it did not reach the target.
    """
    theirs = {trial.configuration: trial for trial in naive}
    pairs = [
        (theirs[trial.configuration], trial) for trial in ours if trial.configuration in theirs
    ]
    if not len(pairs) == len(ours) == len(naive):
        raise ValueError("arms: they did not run the same configurations; see their output.txt")
    scores = [(one.at_target, other.at_target) for one, other in pairs]
    if any(one is None or other is None for one, other in scores):
        raise ValueError("arms: a trial did not reach the target; see their output.txt")
    differences = [other - one for one, other in scores if one is not None and other is not None]
    spread = statistics.stdev(differences) if len(differences) > 1 else 0.0
    return {
        "configurations": [
            {
                **trial.configuration.to_json(),
                "naive_levels": [level.accuracy for level in other.levels],
                "distprune_levels": [level.accuracy for level in trial.levels],
            }
            for other, trial in pairs
        ],
        "naive": [one for one, _ in scores],
        "distprune": [other for _, other in scores],
        "differences": differences,
        "mean_difference": statistics.fmean(differences),
        "deviation_of_differences": spread,
        "naive_dense": [other.dense for other, _ in pairs],
        "distprune_dense": [trial.dense for _, trial in pairs],
    }
