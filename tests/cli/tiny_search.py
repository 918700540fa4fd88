"""The study file of a search that takes seconds: four trials on a tiny checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tiny_values(storage: Path, checkpoint: Path, task: Path) -> dict[str, Any]:
    """Return the values of a study of which the last trial is stopped at the first milestone."""
    return {
        "name": "tiny",
        "storage": str(storage),
        "num_trials": 4,
        "milestones": 3,
        "sampler": {"name": "tpe", "startup_trials": 2},
        "resources": {"cpus_per_stage": 1, "shared_cpus": 1, "max_concurrent": 1},
        "start_with": [
            {"pruning.mixing.coefficient": 0.0, "pruning.retraining": "every_level"},
            {"pruning.retraining": "every_level"},
            {"pruning.mixing.coefficient": 1.0, "pruning.retraining": "never"},
        ],
        "trial": {
            "checkpoint": str(checkpoint),
            "precision": "float32",
            "task": {"dataset": str(task), "max_length": 16},
            "fine_tuning": {"epochs": 6, "learning_rate": 5e-3, "batch_size": 16},
            "retraining": {"epochs": 1},
            "pruning": {
                "target_sparsity": 0.6,
                "schedule": {"levels": 3},
                "importance": {"examples": 32},
                "mixing": {"coefficient": {"uniform": [0.0, 1.0]}},
                "rewinding": {"choice": [0.0, "continue"]},
                "retraining": {"choice": ["every_level", "never"]},
            },
        },
    }
