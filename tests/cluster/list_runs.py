"""Print the MLflow runs of one study as JSON: `list_runs.py SERVER EXPERIMENT STUDY_ID`.

It runs on a node, from where the server is reached.
"""

from __future__ import annotations

import json
import sys
from typing import Any

IGNORED = ("level/seconds", "stages/")
"""Metrics that tell what a trial cost, which differs from one study to the next."""


def main() -> None:
    """Ask for every run, its parent, its outcome and every point of its metrics."""
    from mlflow.tracking import MlflowClient

    server, experiment, study_id = sys.argv[1:]
    client = MlflowClient(server)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=1000) if found else []
    runs = [run for run in runs if run.data.tags["distprune.study_id"] == study_id]
    names = {run.info.run_id: name_run(run) for run in runs}
    described = [describe_run(client, run, names) for run in runs]
    sys.stdout.write(json.dumps(sorted(described, key=lambda run: str(run["name"]))))


def name_run(run: Any) -> str:
    """Return `study`, or the trial that a run is of."""
    tags = run.data.tags
    return f"trial {tags['distprune.trial']}" if tags["distprune.kind"] == "trial" else "study"


def describe_run(client: Any, run: Any, names: dict[str, str]) -> dict[str, Any]:
    """Return what is equal for equal trials."""
    kept = sorted(name for name in run.data.metrics if not name.startswith(IGNORED))
    metrics = {
        name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)]
        for name in kept
    }
    tags = run.data.tags
    return {
        "name": names[run.info.run_id],
        "parent": names.get(tags.get("mlflow.parentRunId", "")),
        "status": run.info.status,
        "outcome": tags.get("distprune.outcome"),
        "parameters": dict(sorted(run.data.params.items())),
        "metrics": metrics,
        "hosts": tags.get("distprune.hosts", ""),
    }


if __name__ == "__main__":
    main()
