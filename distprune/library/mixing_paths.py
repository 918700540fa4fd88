"""What the mixing coefficient λ could have chosen at the best levels of a study.

At each level alone: the levels before it, and so its live units and its scores, are as they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distprune.core.atomic_file import write_file
from distprune.core.importance_scores import Criterion, Importance, normalise
from distprune.core.mixing import MixingOperator
from distprune.core.mixing_path import MixingPath, find_obstacle, trace_mixing_path
from distprune.core.selection import SelectionRule
from distprune.core.units import UnitKind
from distprune.errors import StorageError
from distprune.library.history import TrialRecord
from distprune.library.leaderboard import Candidate, choose_best
from distprune.library.study_folder import StudyFolder
from distprune.methods.spec import PruningSpec
from distprune.store.store import Store
from distprune.trial.stages import read_importance

SCHEMA = "distprune.mixing_path/1"

WHOLE = "whole"
"""Name of the part that is all units together; the others are named by their unit kind."""


@dataclass(frozen=True)
class PathPart:
    """How far λ decides over the units of one kind, or over all together.

    Attributes:
        masks: Different masks of these units that λ in [0, 1] chooses.
        breakpoints: Different λ at which some of these units change hands.
        interval: The λ between which these units are as at the λ that was used.
    """

    masks: int
    breakpoints: int
    interval: tuple[float, float]


@dataclass(frozen=True)
class PathSummary:
    """The mixing path of one level in numbers.

    Attributes:
        milestones: Sparsities at which the level is the best of the study, increasing.
        trial: Number of its trial.
        level: Its level in that trial.
        sparsity: The level's target sparsity, in [0, 1).
        coefficient: The λ that it was made with; None where its settings take none.
        parts: By `head`, `neuron` and `whole`; None where there is no path.
        reason: Why there is no path; None where there is one.
    """

    milestones: tuple[float, ...]
    trial: int
    level: int
    sparsity: float
    coefficient: float | None
    parts: Mapping[str, PathPart] | None
    reason: str | None


@dataclass(frozen=True)
class TracedLevel:
    """A level and its mixing path; None where there is none."""

    summary: PathSummary
    path: MixingPath | None


def trace_best_levels(
    store: Store,
    trials: Mapping[int, TrialRecord],
    milestones: Sequence[float],
    higher_is_better: bool,
) -> list[TracedLevel]:
    """Trace the mixing path of each level that is the best at a milestone, in their order.

    Raises:
        StorageError: The store cannot be read.
    """
    reached: dict[tuple[int, int], list[float]] = {}
    levels: dict[tuple[int, int], Candidate] = {}
    for milestone in milestones:
        best = choose_best(trials.values(), milestone, higher_is_better)
        if best is not None:
            place = best.trial.number, best.result.level
            levels[place] = best
            reached.setdefault(place, []).append(milestone)
    return [
        trace_level(store, candidate, tuple(reached[place])) for place, candidate in levels.items()
    ]


def trace_level(store: Store, candidate: Candidate, milestones: tuple[float, ...]) -> TracedLevel:
    """Trace the mixing path of one level after level 0, or say why it has none.

    Raises:
        StorageError: The store cannot be read.
    """
    spec = PruningSpec.model_validate(candidate.trial.start.spec["pruning"])
    found = explain_no_path(spec) or _trace(store, candidate, spec)
    path = found if isinstance(found, MixingPath) else None
    takes_coefficient = "mixing.coefficient" not in spec.inactive_settings()
    summary = PathSummary(
        milestones=milestones,
        trial=candidate.trial.number,
        level=candidate.result.level,
        sparsity=candidate.result.sparsity,
        coefficient=spec.mixing.coefficient if takes_coefficient else None,
        parts=None if path is None else summarise_path(path, spec.mixing.coefficient),
        reason=found if isinstance(found, str) else None,
    )
    return TracedLevel(summary, path)


def explain_no_path(spec: PruningSpec) -> str | None:
    """Say why levels with these settings have no mixing path; None: they have one."""
    operator, coefficient = spec.mixing.operator, spec.mixing.coefficient
    if spec.importance.criterion is Criterion.RANDOM:
        return "its scores are random and not mixed"
    if spec.sources != (True, True):
        name = "pre-trained" if spec.sources[0] else "fine-tuned"
        setting = f"λ = {coefficient:g}" if operator.takes_coefficient else f"operator {operator}"
        return f"only the {name} importance was measured ({setting})"
    if operator is not MixingOperator.CONVEX:
        return f"operator {operator} has no mixing path; it is traced for convex only"
    return find_obstacle(_make_rule(spec))


def summarise_path(path: MixingPath, coefficient: float) -> dict[str, PathPart]:
    """Return what λ decides about heads, neurons and all together; `coefficient` was used."""
    kinds: dict[str, UnitKind | None] = {str(kind): kind for kind in UnitKind}
    parts = {}
    for name, kind in (kinds | {WHOLE: None}).items():
        low, high = path.interval_at(coefficient, kind)
        masks, breakpoints = path.num_masks(kind), len(path.breakpoints(kind))
        parts[name] = PathPart(masks, breakpoints, (float(low), float(high)))
    return parts


def write_paths(folder: StudyFolder, levels: Sequence[TracedLevel]) -> None:
    """Write the summaries of traced levels into the study's report.

    Raises:
        StorageError: The file cannot be written; it is whole or not there.
    """
    values = {"schema": SCHEMA, "levels": [asdict(level.summary) for level in levels]}
    write_file(locate_paths(folder), json.dumps(values, indent=2) + "\n")


def read_paths(folder: StudyFolder) -> list[PathSummary]:
    """Read the summaries of a study; empty where none were written.

    Raises:
        StorageError: They cannot be read.
    """
    path = locate_paths(folder)
    try:
        values = json.loads(path.read_text())
        if values["schema"] != SCHEMA:
            raise ValueError("another schema")
        return [_read_summary(level) for level in values["levels"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"mixing paths {path}: cannot be read ({error}); run `distprune search` again and "
            "they are written anew"
        ) from error


def format_milestones(milestones: Sequence[float]) -> str:
    """Return sparsities as people say them: 30, 40 and 50 %."""
    *first, last = (f"{milestone * 100:g}" for milestone in milestones)
    return f"{', '.join(first)} and {last} %" if first else f"{last} %"


def describe_path(summary: PathSummary) -> str:
    """Return what λ could have chosen in one sentence, or why that is not known."""
    if summary.parts is None:
        return f"no mixing path: {summary.reason}"
    heads, masks = summary.parts[UnitKind.HEAD].masks, summary.parts[WHOLE].masks
    return (
        f"λ over [0, 1] could have kept {_count(heads, 'set')} of heads and "
        f"{_count(masks, 'whole mask')}"
    )


def locate_paths(folder: StudyFolder) -> Path:
    """Return the file of a study's mixing paths."""
    return folder.report / "mixing_path.json"


def _trace(store: Store, candidate: Candidate, spec: PruningSpec) -> MixingPath | str:
    """Return the path, or why there is none."""
    result, evidence = candidate.result, candidate.result.lineage.evidence
    masks = {level.level: level.mask for level in candidate.trial.levels}
    if result.level - 1 not in masks:
        return f"level {result.level - 1}, which it goes on from, is not in the history"
    live = masks[result.level - 1]
    pretrained = _read(store, evidence.pretrained_key)
    finetuned = _read(store, evidence.finetuned_key)
    if pretrained is None or finetuned is None:
        return "its scores are no longer in the store"
    normalisation = spec.importance.normalisation
    path = trace_mixing_path(
        normalise(pretrained, live, normalisation),
        normalise(finetuned, live, normalisation),
        live,
        result.sparsity,
        _make_rule(spec),
    )
    if path.mask_at(spec.mixing.coefficient) != result.mask:
        return "the scores in the store do not choose its mask; they were measured again since"
    return path


def _make_rule(spec: PruningSpec) -> SelectionRule:
    # Tokens matter to the MACs of joint allocations only, and these have no path.
    return spec.selection_rule(num_tokens=1.0)


def _read(store: Store, key: str | None) -> Importance | None:
    entry = None if key is None else store.find(key)
    return None if entry is None else read_importance(entry)


def _count(number: int, noun: str) -> str:
    return f"{number:,} different {noun}s" if number > 1 else f"{number} {noun}"


def _read_summary(values: Mapping[str, Any]) -> PathSummary:
    parts = values["parts"] and {
        name: PathPart(**{**part, "interval": tuple(part["interval"])})
        for name, part in values["parts"].items()
    }
    return PathSummary(**{**values, "milestones": tuple(values["milestones"]), "parts": parts})
