"""Seconds from a stage's submission to its first training step; workers keep what they loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from scripts.benchmark.results import Row, Values
from scripts.benchmark.settings import REPOSITORY, Settings
from scripts.benchmark.spread import summarise

NUM_WARM = 6


def measure(settings: Settings) -> Values:
    """Time a stage in a new worker, and stages after it."""
    starts = run_starts(settings)
    first, *later = starts
    warm = [start for start in later if start["pid"] == first["pid"]]
    pids = {start["pid"] for start in starts}
    rows = [
        Row("cold worker: submission to first training step, s", summarise([first["to_step_s"]])),
        Row("cold worker: submission to the stage's work, s", summarise([first["to_worker_s"]])),
        Row(
            "warm worker: submission to first training step, s",
            summarise([start["to_step_s"] for start in warm]),
        ),
        Row(
            "warm worker: submission to the stage's work, s",
            summarise([start["to_worker_s"] for start in warm]),
        ),
        Row(f"processes that ran {len(starts)} stages one by one", summarise([float(len(pids))])),
    ]
    return Values(rows, {"starts": starts})


def run_starts(settings: Settings) -> list[dict[str, Any]]:
    """Run the stages in a process of their own."""
    module = "scripts.benchmark.worker_start"
    folder = str(settings.work / "worker-start")
    command = [sys.executable, "-m", module, folder, "--stages", str(NUM_WARM)]
    # Ray's workers import the hook by its name.
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(
        command, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.PIPE
    )
    starts: list[dict[str, Any]] = json.loads(ended.stdout.splitlines()[-1])
    return starts
