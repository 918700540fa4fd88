"""Trials whose scores are in a store, and whose masks these scores chose."""

from __future__ import annotations

from typing import Any

import numpy as np

from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.selection import select
from distprune.core.units import UnitKind
from distprune.library.history import Event, MilestoneReached, Outcome, TrialEnded
from distprune.methods.iterative import mix_sources
from distprune.methods.spec import PruningSpec
from distprune.methods.ticket import Evidence
from distprune.store.key import content_key
from distprune.store.store import Store
from distprune.trial.reporter import Objective, report_milestones
from distprune.trial.results import LevelResult, Lineage
from tests.tracking.events import MILESTONES, REFERENCE, SHAPE, start_trial


def make_scores(seed: int) -> Importance:
    """Make up scores, float32 as models have them."""
    generator = np.random.default_rng(seed)
    shapes = {kind: (SHAPE.num_layers, SHAPE.units_per_layer(kind)) for kind in UnitKind}
    return Importance({kind: generator.random(shapes[kind], np.float32) for kind in UnitKind})


def put_scores(store: Store, seed: int) -> str:
    """Store made up scores as a `score` stage does; return their key."""
    from safetensors.numpy import save_file

    scores = make_scores(seed)
    arrays = {str(kind): scores[kind].astype(np.float32) for kind in UnitKind}
    key = content_key(["made up", seed])
    store.commit(key, lambda folder: save_file(arrays, folder / "importance.safetensors"), {})
    return key


def make_levels(
    store: Store, metrics: tuple[float, ...], pruning: dict[str, Any]
) -> list[LevelResult]:
    """Prune to each milestone in turn, as the method does; level n has scores 2 n and 2 n + 1."""
    spec = PruningSpec.model_validate(pruning)
    mask, evidence = Mask.dense(SHAPE), Evidence()
    levels = []
    for level, sparsity in enumerate((0.0, *MILESTONES)):
        if level > 0:
            seeds = 2 * level, 2 * level + 1
            used = [
                seed if is_used else None for seed, is_used in zip(seeds, spec.sources, strict=True)
            ]
            evidence = Evidence(
                *(None if seed is None else put_scores(store, seed) for seed in used)
            )
            sources = [None if seed is None else make_scores(seed) for seed in used]
            importance = mix_sources(spec, sources[0], sources[1], mask)
            mask = select(importance, mask, SHAPE, sparsity, spec.selection_rule(8.0))
        lineage = Lineage("e" * 64, "d" * 64, "weights.safetensors", evidence)
        levels.append(LevelResult(level, sparsity, mask.pack(), metrics[level], lineage, 1.0))
    return levels


def run_scored_trial(
    store: Store,
    number: int = 0,
    metrics: tuple[float, ...] = (0.9, 0.8, 0.7),
    **pruning: Any,
) -> list[Event]:
    """Return all events of a trial; `pruning` are its settings, `mixing` among them."""
    start = start_trial(number, **pruning)
    levels = make_levels(store, metrics, dict(start.spec["pruning"]))
    reports = report_milestones(levels, MILESTONES, REFERENCE, Objective.CURVE)
    return [
        start,
        *(MilestoneReached(number, start.time, report) for report in reports),
        TrialEnded(number, start.time, Outcome.COMPLETED),
    ]
