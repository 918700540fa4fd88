"""Stability: how much masks agree where nothing but the seed, or λ, is another.

One-shot masks at each milestone, from the importances of dense models (level 0): what a study would
find if it pruned once, and how much of that is chance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distprune.core.agreement import expect_overlap, measure_agreement
from distprune.core.atomic_file import write_file
from distprune.core.importance_scores import FloatArray
from distprune.core.mask import Mask
from distprune.core.selection import select
from distprune.core.units import UnitKind
from distprune.errors import StorageError
from distprune.library.initial_scores import InitialScores
from distprune.library.layer_values import LayerValues, correlate_pairs, read_values, write_values
from distprune.library.study_folder import StudyFolder
from distprune.trial.stages import TrialStages

SCHEMA = "distprune.stability/1"

COEFFICIENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The λ whose masks are compared."""


@dataclass(frozen=True, eq=False)
class MaskAgreement:
    """How much the masks of one sparsity agree, Jaccard indices in [0, 1].

    Attributes:
        milestone: Their sparsity.
        across_seeds: For each kind floats [λ, layer]: masks of one λ, mean over pairs of seeds.
        across_coefficients: For each kind floats [seed, layer]: masks of one seed, mean over pairs
            of λ.
        chance: For each kind what two random masks of that size come to.
    """

    milestone: float
    across_seeds: LayerValues
    across_coefficients: LayerValues
    chance: Mapping[UnitKind, float]


@dataclass(frozen=True, eq=False)
class Stability:
    """How much masks and scores depend on the seed and on λ.

    Attributes:
        trial: Number of the trial whose settings measured the scores.
        seeds: Seeds of the replicates.
        coefficients: The λ, increasing.
        score_agreement: For each kind floats [λ, layer]: Kendall's τ of the mixed scores, mean over
            pairs of seeds; nan where a layer has nothing to rank.
        masks: One for each milestone, increasing.
    """

    trial: int
    seeds: tuple[int, ...]
    coefficients: tuple[float, ...]
    score_agreement: LayerValues
    masks: tuple[MaskAgreement, ...]


def measure_stability(
    stages: TrialStages, trial: int, scores: Sequence[InitialScores], milestones: Sequence[float]
) -> Stability:
    """Compare the one-shot masks and the mixed scores of several replicates.

    Args:
        stages: Stages of the trial whose settings measured the scores and select the masks.
        trial: Its number.
        scores: Those of two replicates at least.
        milestones: Sparsities of the masks, increasing.

    Raises:
        ValueError: There are fewer than two replicates.
        DivergedTrialError: A score is not finite.
    """
    if len(scores) < 2:
        raise ValueError(f"seeds: {len(scores)}; agreement needs two at least")
    pruning = stages.spec.pruning
    mixed = [[s.mix(pruning, coefficient) for s in scores] for coefficient in COEFFICIENTS]
    taus = [correlate_pairs(of_seeds, _correlate) for of_seeds in mixed]
    dense = Mask.dense(stages.shape)
    rule = pruning.selection_rule(stages.num_tokens)
    return Stability(
        trial=trial,
        seeds=tuple(s.seed for s in scores),
        coefficients=COEFFICIENTS,
        score_agreement=_stack(taus),
        masks=tuple(
            compare_masks(
                milestone,
                [
                    [select(scored, dense, stages.shape, milestone, rule) for scored in of_seeds]
                    for of_seeds in mixed
                ],
            )
            for milestone in milestones
        ),
    )


def compare_masks(milestone: float, masks: Sequence[Sequence[Mask]]) -> MaskAgreement:
    """Compare masks [λ][seed] of one sparsity across seeds and across λ."""
    chances = [expect_overlap(mask) for of_seeds in masks for mask in of_seeds]
    return MaskAgreement(
        milestone=milestone,
        across_seeds=_stack([measure_agreement(of_seeds) for of_seeds in masks]),
        across_coefficients=_stack(
            [measure_agreement(of_seed) for of_seed in zip(*masks, strict=True)]
        ),
        chance={kind: float(np.mean([chance[kind] for chance in chances])) for kind in UnitKind},
    )


def write_stability(folder: StudyFolder, stability: Stability) -> None:
    """Write the stability of a study's masks into its report.

    Raises:
        StorageError: The file cannot be written; it is whole or as it was.
    """
    values = {
        "schema": SCHEMA,
        "trial": stability.trial,
        "seeds": list(stability.seeds),
        "coefficients": list(stability.coefficients),
        "score_agreement": write_values(stability.score_agreement),
        "masks": [
            {
                "milestone": found.milestone,
                "across_seeds": write_values(found.across_seeds),
                "across_coefficients": write_values(found.across_coefficients),
                "chance": {str(kind): value for kind, value in found.chance.items()},
            }
            for found in stability.masks
        ],
    }
    write_file(locate_stability(folder), json.dumps(values, indent=2) + "\n")


def read_stability(folder: StudyFolder) -> Stability | None:
    """Read the stability of a study's masks; None where it was not measured.

    Raises:
        StorageError: It cannot be read.
    """
    path = locate_stability(folder)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != SCHEMA:
            raise ValueError("another schema")
        return Stability(
            trial=values["trial"],
            seeds=tuple(values["seeds"]),
            coefficients=tuple(values["coefficients"]),
            score_agreement=read_values(values["score_agreement"]),
            masks=tuple(_read_agreement(found) for found in values["masks"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"stability {path}: cannot be read ({error}); run `distprune confirm` again and it is "
            "written anew"
        ) from error


def locate_stability(folder: StudyFolder) -> Path:
    """Return the file of the stability of a study's masks."""
    return folder.report / "stability.json"


def _read_agreement(values: Mapping[str, Any]) -> MaskAgreement:
    return MaskAgreement(
        milestone=values["milestone"],
        across_seeds=read_values(values["across_seeds"]),
        across_coefficients=read_values(values["across_coefficients"]),
        chance={kind: float(values["chance"][kind]) for kind in UnitKind},
    )


def _stack(values: Sequence[Mapping[UnitKind, FloatArray]]) -> LayerValues:
    return {kind: np.stack([entry[kind] for entry in values]) for kind in UnitKind}


def _correlate(one: FloatArray, other: FloatArray) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(one, other).statistic)
