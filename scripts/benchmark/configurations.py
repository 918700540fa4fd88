"""The twelve configurations, and the study file in which distprune runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.benchmark.settings import REPOSITORY, Settings

QUICKSTART = REPOSITORY / "search_spaces" / "quickstart.yaml"

Rewinding = float | str


@dataclass(frozen=True)
class Configuration:
    """One trial of both arms.

    Attributes:
        coefficient: Mixing coefficient λ.
        levels: Levels of a linear schedule.
        rewinding: Fraction of the dense fine-tuning to rewind to, or `continue`.
    """

    coefficient: float
    levels: int
    rewinding: Rewinding

    def to_json(self) -> dict[str, Any]:
        """Return the three values by name."""
        return asdict(self)


# Each schedule with each rewinding point twice; any first few are mixed, too.
TWELVE = (
    Configuration(0.0, 2, 0.0),
    Configuration(0.25, 4, 0.0),
    Configuration(0.75, 2, 0.5),
    Configuration(0.75, 4, "continue"),
    Configuration(1.0, 2, 0.0),
    Configuration(0.5, 4, 0.5),
    Configuration(0.5, 2, "continue"),
    Configuration(0.75, 4, 0.0),
    Configuration(0.25, 2, 0.5),
    Configuration(1.0, 4, 0.5),
    Configuration(0.0, 2, "continue"),
    Configuration(0.25, 4, "continue"),
)


def study_values(settings: Settings, name: str, storage: Path, num_trials: int) -> dict[str, Any]:
    """Return a study file on the quickstart's task and recipes, with the space of both arms.

    It has milestones at half the target and at the target, which both schedules meet. What it does
    not say is distprune's default.
    """
    trial = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))["trial"]
    task = {
        **trial["task"],
        "train_limit": settings.train_examples,
        "search_limit": settings.search_examples,
        "report_limit": settings.report_examples,
    }
    retraining = {
        name: value for name, value in trial["retraining"].items() if not isinstance(value, Mapping)
    }
    return {
        "name": name,
        "storage": str(storage),
        "num_trials": num_trials,
        "milestones": 2,
        "trial": {
            "checkpoint": trial["checkpoint"],
            "task": task,
            "fine_tuning": trial["fine_tuning"],
            "retraining": retraining,
            "pruning": {
                "units": ["head", "neuron"],
                "target_sparsity": 0.5,
                "schedule": {"shape": "linear", "levels": {"choice": [2, 4]}},
                "importance": {"estimator": "example", "examples": settings.scored_examples},
                "mixing": {"operator": "convex", "coefficient": {"uniform": [0.0, 1.0]}},
                "rewinding": {"choice": [0.0, 0.5, "continue"]},
            },
        },
    }


def fixed_study(
    settings: Settings, name: str, storage: Path, configurations: Sequence[Configuration]
) -> dict[str, Any]:
    """Return a study file of exactly these configurations, all of which run to the target."""
    start_with = [
        {
            "pruning.mixing.coefficient": configuration.coefficient,
            "pruning.schedule.levels": configuration.levels,
            "pruning.rewinding": configuration.rewinding,
        }
        for configuration in configurations
    ]
    return {
        **study_values(settings, name, storage, len(configurations)),
        "stopping": None,
        "sampler": {"name": "random"},
        "start_with": start_with,
    }


def write_study(values: Mapping[str, Any], path: Path) -> Path:
    """Write a study file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")
    return path
