"""Many trials that do nothing: what the search itself costs, in time and in memory.

distprune's arm is the product as it is: Optuna's journal, history, MLflow and Ray's stage tasks
included. Only the work of the stages is replaced, by tiny files. Each trial prunes in one shot, and
has a retrain and an evaluate stage of its own. The plain arm reports as often, writes nothing, and
has no logger; it runs with Tune's default of a new process a trial, and with reused ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from distprune.library.study_folder import StudyFolder
from scripts.benchmark.arms import Arm, EndedArm, RunningArm, Watch, run_module
from scripts.benchmark.configurations import study_values
from scripts.benchmark.results import Limit, Row, Values
from scripts.benchmark.samples import read_samples, write_sample
from scripts.benchmark.settings import CONCURRENT, Settings
from scripts.benchmark.spread import fit_slope, summarise
from scripts.benchmark.studies import HERE, identify, run_distprune, storage

ARM = "distprune-trivial"
NUM_MILESTONES = 5
WARM_UP_TRIALS = 200
"""Trials before memory should be flat; a fifth of all where that is less."""
FLAT_MIB = 1.0
"""Growth of the driver in 100 trials that still counts as flat."""
TRIAL_ENDED = b'"TrialEnded"'
MIB = 1 << 20


def measure(settings: Settings) -> Values:
    """Run all arms, and read the driver's memory every second meanwhile."""
    count = settings.trivial_trials
    ours = run_trivial(settings)
    plain, reusing = run_plain(settings, "plain"), run_plain(settings, "plain-reusing", "--reuse")
    rows = [
        Row(
            f"{count} trials of trivial stages: distprune wall / plain Tune wall",
            summarise([ours.seconds / plain.seconds]),
            Limit("<=", 1.3),
        ),
        Row(
            "the same: distprune wall / plain Tune wall with reused actors",
            summarise([ours.seconds / reusing.seconds]),
        ),
        Row("the same: distprune wall, s", summarise([ours.seconds])),
        Row("the same: plain Tune wall, s", summarise([plain.seconds])),
    ]
    limits = {"distprune": Limit("<=", FLAT_MIB, "flat"), "plain Tune": None}
    details: dict[str, Any] = {"plain_reusing_seconds": reusing.seconds}
    for ended, (name, limit) in zip((ours, plain), limits.items(), strict=True):
        samples = read_samples(ended.folder)
        growth = measure_growth([(one["trials"], one["uss_mib"]) for one in samples], count)
        label = f"the same: growth of {name}'s driver in 100 trials, MiB"
        rows.append(Row(label, summarise([growth]), limit))
        details[name] = {"seconds": ended.seconds, "driver_memory": samples}
    return Values(rows, details)


def measure_growth(points: Sequence[tuple[float, float]], num_trials: int) -> float:
    """Return the growth in 100 trials, after those in which everything warms up.

    Args:
        points: Trials that had ended, and memory.
        num_trials: Trials in all.
    """
    warm = min(WARM_UP_TRIALS, num_trials // 5)
    return 100 * fit_slope([point for point in points if warm <= point[0] < num_trials])


def run_trivial(settings: Settings) -> EndedArm:
    """Run distprune's arm."""
    history = StudyFolder(storage(settings, ARM), ARM).history
    watch = watch_driver(lambda: count_ended(history))
    return run_distprune(settings, ARM, trivial_study(settings), switch="stage_work", watch=watch)


def trivial_study(settings: Settings) -> dict[str, Any]:
    """Return a study in which each trial has two stages of its own and reports five milestones."""
    values = study_values(settings, ARM, storage(settings, ARM), settings.trivial_trials)
    pruning = {
        **values["trial"]["pruning"],
        "schedule": {"shape": "one_shot"},
        "rewinding": "continue",
    }
    retraining = {"epochs": 1, "learning_rate": {"log_uniform": [5.0e-5, 3.0e-4]}}
    trial = {**values["trial"], "pruning": pruning, "retraining": retraining}
    return {**values, "milestones": NUM_MILESTONES, "trial": trial}


def run_plain(settings: Settings, name: str, *arguments: str) -> EndedArm:
    """Run plain Tune."""
    folder = settings.work / name
    command = run_module(
        "scripts.benchmark.plain_tune",
        folder,
        *("--trials", settings.trivial_trials, "--concurrent", CONCURRENT),
        *("--milestones", NUM_MILESTONES, *arguments),
    )
    identity = identify(command, (), settings, [HERE / "plain_tune.py"])
    return Arm(folder, command, identity).run(watch_driver(lambda: count_folders(folder / "plain")))


def watch_driver(count_trials: Callable[[], int]) -> Watch:
    """Return a watch that writes down the driver's memory beside the trials that it has run."""

    def watch(arm: RunningArm) -> bool:
        try:
            memory = psutil.Process(arm.pid).memory_full_info()
        except psutil.Error:
            return True
        sample = {
            "trials": count_trials(),
            "rss_mib": memory.rss / MIB,
            "uss_mib": memory.uss / MIB,
        }
        write_sample(arm.folder, sample)
        return True

    return watch


def count_ended(history: Path) -> int:
    """Count the trials that a history says have ended."""
    return history.read_bytes().count(TRIAL_ENDED) if history.exists() else 0


def count_folders(experiment: Path) -> int:
    """Count the trials that Tune has made a folder for."""
    return sum(1 for path in experiment.iterdir() if path.is_dir()) if experiment.exists() else 0
