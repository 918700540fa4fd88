"""Forgetting: how far fine-tuning moves the importance of each layer's units from pre-training.

The thesis's second finding (Achlatis 2021, abstract: fine-tuning forgets prior knowledge), measured
as the rank correlation of the two importances at level 0; 1 = fine-tuning has not changed which
units of a layer matter, 0 = it has nothing to do with what mattered before. The measure is ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distprune.core.atomic_file import write_file
from distprune.core.importance_scores import FloatArray
from distprune.core.units import UnitKind
from distprune.errors import StorageError
from distprune.library.initial_scores import InitialScores, measure_scores, name_objective
from distprune.library.layer_values import (
    LayerValues,
    average,
    correlate_layers,
    read_values,
    write_values,
)
from distprune.library.study_folder import StudyFolder
from distprune.tasks.spec import DEMO_PREFIX, LOCAL_SUFFIXES, TaskSpec
from distprune.trial.stages import TrialStages

SCHEMA = "distprune.forgetting/1"


@dataclass(frozen=True, eq=False)
class Forgetting:
    """The correlation of pre-trained and fine-tuned importance in one domain.

    Attributes:
        domain: Name of the task.
        pretrained_objective: What the pre-trained importance was measured with.
        seeds: Seeds of the replicates.
        correlations: For each kind floats [seed, layer], Spearman's ρ in [-1, 1]; nan where a layer
            has nothing to rank.
    """

    domain: str
    pretrained_objective: str
    seeds: tuple[int, ...]
    correlations: LayerValues

    def mean(self, kind: UnitKind) -> FloatArray:
        """Return the mean over seeds, floats [layer]."""
        return average(self.correlations[kind])

    def range(self, kind: UnitKind) -> tuple[FloatArray, FloatArray]:
        """Return the lowest and the highest of all seeds, floats [layer]; nan as in `mean`."""
        values = self.correlations[kind]
        known, undefined = np.isfinite(values), np.isnan(self.mean(kind))
        low = np.where(known, values, np.inf).min(axis=0)
        high = np.where(known, values, -np.inf).max(axis=0)
        return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def measure_forgetting(stages: TrialStages) -> Forgetting:
    """Measure forgetting with the seed of a trial, in the domain of its task.

    Raises:
        CheckpointError: `mlm` is asked for and the checkpoint has no head of its own.
        DivergedTrialError: The dense model has diverged.
    """
    return correlate_scores(stages, [measure_scores(stages)])


def correlate_scores(stages: TrialStages, scores: Sequence[InitialScores]) -> Forgetting:
    """Return the forgetting that the scores of several replicates of a trial show."""
    by_seed = [correlate_layers(s.pretrained, s.finetuned, _correlate) for s in scores]
    return Forgetting(
        domain=name_domain(stages.spec.task),
        pretrained_objective=name_objective(stages),
        seeds=tuple(s.seed for s in scores),
        correlations={kind: np.stack([values[kind] for values in by_seed]) for kind in UnitKind},
    )


def name_domain(task: TaskSpec) -> str:
    """Return a short name of a task: movies, or the file without its ending."""
    name = task.dataset.removeprefix(DEMO_PREFIX)
    if name.endswith(LOCAL_SUFFIXES):
        name = Path(name).stem
    return f"{name} {task.config}" if task.config else name


def write_forgetting(folder: StudyFolder, domains: Sequence[Forgetting]) -> None:
    """Write the forgetting in one domain or in several into the study's report.

    Raises:
        StorageError: The file cannot be written; it is whole or as it was.
    """
    write_file(locate_forgetting(folder), json.dumps(list_values(domains), indent=2) + "\n")


def list_values(domains: Sequence[Forgetting]) -> dict[str, Any]:
    """Return forgetting as JSON values."""
    return {
        "schema": SCHEMA,
        "domains": [
            {
                "domain": found.domain,
                "pretrained_objective": found.pretrained_objective,
                "seeds": list(found.seeds),
                "correlations": write_values(found.correlations),
                "mean": write_values({kind: found.mean(kind) for kind in UnitKind}),
            }
            for found in domains
        ],
    }


def read_forgetting(folder: StudyFolder) -> list[Forgetting]:
    """Read the forgetting that a study has measured; empty where it has not.

    Raises:
        StorageError: It cannot be read.
    """
    path = locate_forgetting(folder)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != SCHEMA:
            raise ValueError("another schema")
        return [_read(domain) for domain in values["domains"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"forgetting {path}: cannot be read ({error}); run `distprune confirm` again and it "
            "is written anew"
        ) from error


def locate_forgetting(folder: StudyFolder) -> Path:
    """Return the file of a study's forgetting."""
    return folder.report / "forgetting.json"


def _read(values: Mapping[str, Any]) -> Forgetting:
    return Forgetting(
        domain=values["domain"],
        pretrained_objective=values["pretrained_objective"],
        seeds=tuple(values["seeds"]),
        correlations=read_values(values["correlations"]),
    )


def _correlate(one: FloatArray, other: FloatArray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)
