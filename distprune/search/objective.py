"""A study's objective, ready for its trials: the table of one that has a latency to meet is read.

A study keeps the table that it began with, so that all its trials are predicted alike, also where
the file was measured again or the study goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distprune.core.latency_table import (
    Architecture,
    LatencyTable,
    LayerLatencies,
    locate_table,
    read_table,
    write_table,
)
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import ConfigError
from distprune.library.study_folder import StudyFolder
from distprune.methods.spec import PruningSpec
from distprune.search.spec import LatencyLimit
from distprune.search.study_file import Study
from distprune.trial.context import TrialContext
from distprune.trial.latency_objective import LatencyObjective
from distprune.trial.reporter import Objective

MARGIN = 0.05
"""Masks that keep equally many units differ in latency by less, relative to it."""


def open_objective(
    study: Study, folder: StudyFolder, context: TrialContext
) -> Objective | LatencyObjective:
    """Return what the trials of a study are rated by; the study gets a copy of its latency table.

    Raises:
        InputError: The table cannot be read, does not fit the model or this machine, or the latency
            is met without pruning or out of reach at the target sparsity.
    """
    spec = study.spec.objective
    if not isinstance(spec, LatencyLimit):
        return spec
    table = _open_table(spec, folder)
    table.check_architecture(Architecture(context.checkpoint.model_type, context.shape))
    latencies = table.select(
        batch=spec.batch, length=spec.length, threads=spec.threads, dtype=spec.dtype
    )
    objective = LatencyObjective(spec.latency_ms / 1e3, latencies)
    _check_reach(objective, context.shape, study.base.pruning)
    write_table(replace(table, latencies=(latencies,)), folder.latency_table)
    return objective


def find_comparable(
    objective: Objective | LatencyObjective,
    milestones: Sequence[float],
    shape: EncoderShape,
    pruning: PruningSpec,
) -> int:
    """Return the first milestone, from 1, at which an objective can tell trials apart.

    With a latency to meet it is the one at which all meet it. Before, some meet it and others do
    not because of their schedules alone: a one-shot trial does at the first milestone already, and
    would win there whatever it has lost.
    """
    if not isinstance(objective, LatencyObjective):
        return 1
    limit = objective.limit * (1.0 - MARGIN)
    met = (
        number
        for number, milestone in enumerate(milestones, start=1)
        if predict_evenly(objective.latencies, shape, pruning, milestone) <= limit
    )
    return next(met, len(milestones))


def predict_evenly(
    latencies: LayerLatencies, shape: EncoderShape, pruning: PruningSpec, sparsity: float
) -> float:
    """Predict the latency where each layer loses the same share of the units that are pruned."""
    kept = {
        kind: shape.units_per_layer(kind) * (1.0 - sparsity if kind in pruning.units else 1.0)
        for kind in UnitKind
    }
    layers = (np.full(shape.num_layers, kept[kind]) for kind in UnitKind)
    return latencies.predict_counts(*layers)


def _open_table(spec: LatencyLimit, folder: StudyFolder) -> LatencyTable:
    """Return the study's own table once it has begun, else that of the file."""
    if folder.history.exists() and folder.latency_table.exists():
        return read_table(folder.latency_table)
    table = read_table(locate_table(Path(spec.table).expanduser()))
    if spec.machine == "this":
        from distprune.deployment.machine import describe_machine

        device = "cuda" if table.machine.accelerator else "cpu"
        table.check_machine(describe_machine(device), "objective.machine: any")
    return table


def _check_reach(objective: LatencyObjective, shape: EncoderShape, pruning: PruningSpec) -> None:
    limit, target = objective.limit, pruning.target_sparsity
    dense, smallest = (
        predict_evenly(objective.latencies, shape, pruning, sparsity) for sparsity in (0.0, target)
    )
    if dense <= limit:
        raise ConfigError(
            f"objective.latency_ms: {limit * 1e3:g}; the dense model is predicted to take "
            f"{dense * 1e3:.3g} ms already, so nothing has to be pruned for it; lower it"
        )
    if smallest > limit:
        raise ConfigError(
            f"objective.latency_ms: {limit * 1e3:g}; at the target sparsity {target:g} the model "
            f"is predicted to take {smallest * 1e3:.3g} ms still; raise it, or "
            "trial.pruning.target_sparsity"
        )
