"""Both arms with Optuna's TPE and ASHA: what it costs, and whether the best is found."""

from __future__ import annotations

from distprune.library.study_folder import StudyFolder
from scripts.benchmark.configurations import study_values
from scripts.benchmark.results import Row, Values
from scripts.benchmark.settings import Settings
from scripts.benchmark.spread import summarise
from scripts.benchmark.studies import (
    best_at_target,
    read_distprune,
    read_naive,
    run_distprune,
    run_naive,
    storage,
)

ARM = "distprune-asha"


def measure(settings: Settings) -> Values:
    """Run as many trials in both arms, each as its documentation suggests."""
    count = settings.asha_trials
    naive = run_naive(settings, "naive-asha", arguments=("--asha", "--trials", str(count)))
    ours = run_distprune(settings, ARM, study_values(settings, ARM, storage(settings, ARM), count))
    theirs_trials, best_result = read_naive(naive)
    ours_trials = read_distprune(StudyFolder(storage(settings, ARM), ARM))
    rows = [
        Row(
            f"with Optuna and ASHA, {count} trials: naive wall / distprune wall",
            summarise([naive.seconds / ours.seconds]),
        ),
        Row("the same: naive wall, s", summarise([naive.seconds])),
        Row("the same: distprune wall, s", summarise([ours.seconds])),
        Row("the same: sparsity of get_best_result", summarise([best_result["sparsity"]])),
    ]
    best = {"naive": best_at_target(theirs_trials), "distprune": best_at_target(ours_trials)}
    rows += [
        Row(f"the same: best accuracy at the target, {arm}", summarise([value]))
        for arm, value in best.items()
        if value is not None
    ]
    details = {
        "naive_seconds": naive.seconds,
        "distprune_seconds": ours.seconds,
        "naive_get_best_result": best_result,
        "best_at_target": best,
        "naive_levels": [[one.accuracy for one in trial.levels] for trial in theirs_trials],
        "distprune_levels": [[one.accuracy for one in trial.levels] for trial in ours_trials],
    }
    return Values(rows, details)
