"""`distprune search` with stages that do nothing, and probes in the driver.

python -m scripts.scale.measured_search PROBES.json TRIALS STUDY.yaml --json
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

import mlflow
import ray
from ray.tune.execution.tune_controller import TuneController

from distprune.cli.app import main
from distprune.library.history import History
from distprune.search import study as study_module
from distprune.search.ledger import Ledger
from distprune.search.proposals import Proposer
from distprune.tracking.study_run import StudyRun
from distprune.tracking.tracker import Tracker
from scripts.benchmark import switches
from scripts.benchmark.changed_search import connect
from scripts.scale.probes import Probes

CLIENT_CALLS = (
    "create_run",
    "log_artifact",
    "log_artifacts",
    "log_batch",
    "search_runs",
    "set_tag",
    "set_terminated",
    "update_run",
)
"""What distprune asks of an MLflow client while trials run."""


def install(probes: Probes) -> None:
    """Put probes where the driver spends its time."""
    probes.watch(TuneController, "step", "tune: step")
    probes.watch(TuneController, "checkpoint", "tune: snapshot")
    probes.watch(Ledger, "assign", "ledger: assign")
    probes.watch(Ledger, "report", "ledger: report")
    probes.watch(Ledger, "end", "ledger: end")
    probes.watch(Proposer, "propose", "optuna: ask")
    probes.watch(Proposer, "report", "optuna: report")
    probes.watch(Proposer, "tell", "optuna: tell")
    probes.watch(Proposer, "rebuild", "optuna: rebuild")
    probes.watch(History, "append", "history: append")
    probes.watch(study_module, "answer_from_store", "store: look up")
    probes.watch(study_module, "write_results", "study: results")
    probes.watch(StudyRun, "send", "tracking: event")
    probes.watch(Tracker, "finish", "tracking: wait at the end")
    for call in CLIENT_CALLS:
        probes.watch(mlflow.MlflowClient, call, f"mlflow: {call}")
    probes.count_ends(Ledger, "end")


def run(output: Path, num_trials: int) -> None:
    """Run the search, and write down what the probes have seen."""
    probes, started = Probes(num_trials), time.perf_counter()
    install(probes)
    try:
        main()
    finally:
        values = {
            "seconds": time.perf_counter() - started,
            "ended": probes.num_ended,
            "threads": threading.active_count(),
            "probes": probes.to_json(),
        }
        output.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    _, to, trials, *arguments = sys.argv
    os.environ[switches.VARIABLE] = "stage_work"
    switches.install()
    ray.init = partial(connect, ray.init, "scripts.benchmark.switches.install")
    sys.argv = ["distprune", "search", *arguments]
    run(Path(to), int(trials))
