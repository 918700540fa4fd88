"""Compare a study's best masks with controls of the same size, over several seeds.

For the winner at each milestone, the same trial is run again with fresh seeds as it is ("best"),
with the fine-tuned importance alone ("lambda 0"), and with random importance ("random"). All arms
have the same schedule, recipe and rewinding point, so they differ in nothing but the units they
keep. Means and standard deviations over seeds are on the report split, which no decision has seen.

    python scripts/compare_with_controls.py studies/movies --seeds 1 2 3 --workers 2
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from distprune.cli.results import find_study
from distprune.library.history import History, read_trials
from distprune.library.leaderboard import Leaderboard, read_leaderboard
from distprune.search.space import set_values
from distprune.trial.spec import TrialSpec

ARMS: dict[str, dict[str, Any]] = {
    "best": {},
    "lambda 0": {"pruning.mixing.operator": "finetuned"},
    "random": {"pruning.importance.criterion": "random"},
}


def main() -> None:
    """Run all arms and print a table, or JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workers", type=int, default=1, help="processes, one seed each")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder = find_study(arguments.study)
    leaderboard = read_leaderboard(folder)
    trials = read_trials(History(folder.history).events())
    specs = {row.trial: dict(trials[row.trial].start.spec) for row in leaderboard.rows}
    jobs = [(str(folder.store), leaderboard, specs, seed) for seed in arguments.seeds]
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        measured = [entry for entries in pool.map(run_seed, jobs) for entry in entries]
    print(json.dumps(measured, indent=2) if arguments.json else format_table(leaderboard, measured))


def run_seed(job: tuple[str, Leaderboard, dict[int, dict[str, Any]], int]) -> list[dict[str, Any]]:
    """Measure every arm at every milestone with one seed."""
    store, leaderboard, specs, seed = job
    import torch

    torch.set_num_threads(1)
    measured = []
    for trial in sorted({row.trial for row in leaderboard.rows}):
        levels = {row.milestone: row.level for row in leaderboard.rows if row.trial == trial}
        for arm, changes in ARMS.items():
            spec = TrialSpec.model_validate(set_values(specs[trial], {**changes, "seed": seed}))
            for level, metric in measure_levels(spec, Path(store), set(levels.values())):
                measured += [
                    {"milestone": milestone, "arm": arm, "seed": seed, "metric": metric}
                    for milestone, wanted in levels.items()
                    if wanted == level
                ]
            print(f"seed {seed}, trial {trial}, {arm}: done", flush=True)
        dense = next(measure_levels(spec, Path(store), {0}))[1]
    return [*measured, {"milestone": 0.0, "arm": "dense", "seed": seed, "metric": dense}]


def measure_levels(spec: TrialSpec, store: Path, levels: set[int]) -> Iterator[tuple[int, float]]:
    """Run a trial up to the last of `levels` and yield their metrics on the report split."""
    import torch

    from distprune.methods.ticket import WeightsReference
    from distprune.store.store import Store
    from distprune.trial.executor import InProcessExecutor
    from distprune.trial.resolve import resolve_context
    from distprune.trial.runner import run_trial
    from distprune.trial.stages import TrialStages

    opened = Store(str(store))
    rewinding = spec.pruning.rewinding
    points = [] if rewinding == "continue" else [float(rewinding)]
    context = resolve_context(spec, opened, points, uses_gpu=torch.cuda.is_available())
    stages = TrialStages(spec, context, opened, InProcessExecutor(opened))
    for result in run_trial(stages):
        if result.level in levels:
            weights = WeightsReference(result.lineage.weights, result.lineage.weights_file)
            yield (
                result.level,
                stages.evaluate_weights(weights, result.mask, "report").metric,
            )
        if result.level == max(levels):
            return


def format_table(leaderboard: Leaderboard, measured: list[dict[str, Any]]) -> str:
    """Return mean and standard deviation over seeds of each arm at each milestone."""
    dense = [entry["metric"] for entry in measured if entry["arm"] == "dense"]
    lines = [
        f"{leaderboard.study}: {leaderboard.metric} on the report split, mean and standard "
        f"deviation over {len(dense)} seeds; dense {describe(dense)}",
        "",
        "| units removed | " + " | ".join(ARMS) + " | best - lambda 0 | best - random |",
        "|---|" + "---|" * (len(ARMS) + 2),
    ]
    for row in leaderboard.rows:
        metrics = {
            arm: [
                entry["metric"]
                for entry in sorted(measured, key=lambda entry: entry["seed"])
                if entry["arm"] == arm and entry["milestone"] == row.milestone
            ]
            for arm in ARMS
        }
        cells = [describe(metrics[arm]) for arm in ARMS]
        cells += [
            describe([a - b for a, b in zip(metrics["best"], metrics[arm], strict=True)], "+")
            for arm in ("lambda 0", "random")
        ]
        lines.append(f"| {row.milestone * 100:g} % | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def describe(values: list[float], sign: str = "") -> str:
    """Return mean and standard deviation of `values`."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):{sign}.4f} ± {spread:.4f}"


if __name__ == "__main__":
    main()
