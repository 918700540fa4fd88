"""A study without models: accuracy falls with sparsity, by an amount that the settings decide.

Levels go through the real milestones and the real trainable: what a trial reports is what a real
one would report.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from distprune.core.mask import Mask
from distprune.core.retention import Reference
from distprune.core.units import UnitKind
from distprune.library.history import History
from distprune.library.study_folder import StudyFolder
from distprune.methods.ticket import Evidence
from distprune.search import trainable
from distprune.search.ledger import Ledger, Observer
from distprune.search.proposals import Proposer
from distprune.search.study_file import Study, check_study
from distprune.search.trainable import TrialSurroundings, walk_trial
from distprune.trial.results import LevelResult, Lineage
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import TrialStages
from tests.tiny_study import SHAPE

REFERENCE = Reference(dense=0.9, floor=0.5)
NUM_UNITS = 20
DIVERGING = 13
"""Batch size of a trial whose second level has no finite metric."""
FAILING = 17
"""Batch size of a trial whose second level raises."""
COLLAPSING = 19
"""Batch size of a trial that is the best at its first level and worthless after it."""


def study_values(**changes: Any) -> dict[str, Any]:
    """Return the values of a study file with three searched settings, changed at the top."""
    return {
        "name": "synthetic",
        "num_trials": 6,
        "milestones": [0.2, 0.4, 0.6],
        "seed": 3,
        "sampler": {"name": "tpe", "startup_trials": 2},
        "trial": trial_values(),
        **changes,
    }


def trial_values(**pruning: Any) -> dict[str, Any]:
    """Return the settings of a trial, ranges among them; `pruning` is set or added."""
    return {
        "checkpoint": "nowhere",
        "task": {"dataset": "nothing.csv"},
        "pruning": {
            "target_sparsity": 0.6,
            "schedule": {
                "shape": {"choice": ["linear", "one_shot"]},
                "levels": {"int": [2, 3]},
            },
            "mixing": {"coefficient": {"uniform": [0.0, 1.0]}},
            **pruning,
        },
    }


def make_study(**changes: Any) -> Study:
    """Check the values of `study_values`."""
    return check_study(study_values(**changes))


def measure_levels(spec: TrialSpec) -> Iterator[LevelResult]:
    """Yield the levels of a trial; accuracy falls with sparsity, least at λ = 0.3."""
    slope = 0.1 + (spec.pruning.mixing.coefficient - 0.3) ** 2
    for level, sparsity in enumerate((0.0, *spec.pruning.sparsities)):
        accuracy = REFERENCE.dense - slope * sparsity
        if level == 2 and spec.retraining.batch_size == DIVERGING:
            accuracy = math.nan
        if level == 2 and spec.retraining.batch_size == FAILING:
            raise RuntimeError("the disk\nis on fire")
        if spec.retraining.batch_size == COLLAPSING:
            accuracy = accuracy + 0.005 if level < 2 else REFERENCE.floor
        yield make_level(level, sparsity, accuracy)


def make_level(level: int, sparsity: float, accuracy: float) -> LevelResult:
    """Return a level whose mask has the given sparsity."""
    kept = np.arange(NUM_UNITS).reshape(2, -1) >= round(sparsity * NUM_UNITS)
    return LevelResult(
        level=level,
        sparsity=sparsity,
        packed_mask=Mask(dict.fromkeys(UnitKind, kept)).pack(),
        metric=accuracy,
        lineage=Lineage("evaluation", "weights", "weights.safetensors", Evidence()),
        seconds=0.0,
    )


def make_surroundings(study: Study) -> TrialSurroundings:
    """Return what `walk_trial` gets: of the context only the shape, no store and no broker."""
    nothing: Any = None
    context: Any = SimpleNamespace(shape=SHAPE)
    return TrialSurroundings(
        context=context,
        reference=REFERENCE,
        milestones=study.milestones,
        objective=study.spec.objective,
        store=nothing,
        broker=nothing,
    )


def walk_synthetic(config: dict[str, Any], surroundings: TrialSurroundings) -> None:
    """Walk a trial as `walk_trial` does, over synthetic levels."""

    def run_trial(stages: TrialStages) -> Iterator[LevelResult]:
        return measure_levels(stages.spec)

    with patch.object(trainable, "run_trial", run_trial):
        walk_trial(config, surroundings)


def collect_results(config: dict[str, Any], study: Study) -> list[dict[str, Any]]:
    """Return everything that a trial reports to Tune if nobody stops it."""
    results: list[dict[str, Any]] = []
    with patch.object(trainable.tune, "report", results.append):
        walk_synthetic(config, make_surroundings(study))
    return results


def open_ledger(study: Study, folder: StudyFolder, observers: tuple[Observer, ...] = ()) -> Ledger:
    """Open the ledger of a study on its real files."""
    return Ledger(
        num_trials=study.spec.num_trials,
        num_milestones=len(study.milestones),
        history=History(folder.history),
        proposer=Proposer(study, folder.optuna_journal),
        observers=observers,
    )


def read_optuna(path: Path, name: str = "synthetic") -> list[optuna.trial.FrozenTrial]:
    """Return the trials in an Optuna journal, as any other program would read them."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name=name, storage=storage).get_trials()
