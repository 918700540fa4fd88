"""The stages that a study would ask for, found by walking real trials over made-up results.

Importance is random, decided by what it is the importance of, and all metrics are equal. So trials
whose settings lead to the same stages share them here as they would in the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.selection import select
from distprune.core.units import EncoderShape, UnitKind
from distprune.search.made_up_search import DrawnTrial
from distprune.search.study import share_probe
from distprune.search.study_file import Study
from distprune.trial.context import TrialContext
from distprune.trial.request import StageRequest, seed_from_key
from distprune.trial.resolve import measure_reference
from distprune.trial.runner import run_trial
from distprune.trial.spec import TrialSpec
from distprune.trial.stage_kinds import StageKind, find_kind
from distprune.trial.stage_timing import Sample
from distprune.trial.stages import TrialStages


@dataclass(frozen=True)
class AskedTrial:
    """A trial, and the stages that each of its levels asks for, the level's evaluation last.

    A stage is listed where the trial first asks for it. For the quality see `DrawnTrial`.
    """

    spec: TrialSpec
    quality: float
    levels: tuple[tuple[StageRequest, ...], ...]


@dataclass(frozen=True)
class AskedStages:
    """The stages that a study would ask for.

    Attributes:
        base: The trial whose dense model is the study's reference.
        shared: What the driver asks for before the trials.
        rounds: The trials, in order, of each round that the study may go.
    """

    base: TrialSpec
    shared: tuple[StageRequest, ...]
    rounds: tuple[tuple[AskedTrial, ...], ...]

    @property
    def samples(self) -> dict[StageKind, Sample]:
        """A stage of each kind, with a trial that asks for it."""
        of_trials = (
            Sample(trial.spec, request)
            for trials in self.rounds
            for trial in trials
            for requests in trial.levels
            for request in requests
        )
        of_driver = (Sample(self.base, request) for request in self.shared)
        return {find_kind(sample.request): sample for sample in (*of_trials, *of_driver)}


def ask_study(
    study: Study, context: TrialContext, rounds: Sequence[Sequence[DrawnTrial]], scratch: Path
) -> AskedStages:
    """List the stages that a study would ask for if no trial were stopped.

    Args:
        study: The study.
        context: Its facts.
        rounds: The trials, in order, of each round that the study may go.
        scratch: Folder for what is made up.
    """
    made_up = MadeUpResults(context, scratch)
    stages = made_up.bind(study.base)
    measure_reference(stages)
    share_probe(study, stages)
    walked: dict[str, tuple[tuple[StageRequest, ...], ...]] = {}

    def ask(trial: DrawnTrial) -> AskedTrial:
        name = trial.spec.model_dump_json()
        if name not in walked:
            walked[name] = _walk(trial.spec, context, scratch)
        return AskedTrial(trial.spec, trial.quality, walked[name])

    return AskedStages(
        study.base, made_up.take(), tuple(tuple(map(ask, trials)) for trials in rounds)
    )


def _walk(
    spec: TrialSpec, context: TrialContext, scratch: Path
) -> tuple[tuple[StageRequest, ...], ...]:
    made_up = MadeUpResults(context, scratch)
    return tuple(made_up.take() for _ in run_trial(made_up.bind(spec)))


def draw_target(study: Study, context: TrialContext) -> Mask:
    """Draw a mask of the study's target sparsity, as its selection would make it."""
    pruning, shape = study.base.pruning, context.shape
    rule = pruning.selection_rule(context.num_tokens)
    importance = draw_importance(shape, study.spec.seed)
    return select(importance, Mask.dense(shape), shape, pruning.target_sparsity, rule)


def draw_importance(shape: EncoderShape, seed: int) -> Importance:
    """Draw an importance of every unit, uniform in [0, 1)."""
    generator = np.random.default_rng(seed)
    return Importance(
        {
            kind: generator.random((shape.num_layers, shape.units_per_layer(kind)))
            for kind in UnitKind
        }
    )


@dataclass
class MadeUpResults:
    """Stands in for the executor and the store of a trial, and notes what it asks for.

    Snapshots are left out: dense fine-tuning stores them on the way.
    """

    context: TrialContext
    scratch: Path
    _asked: dict[str, StageRequest] = field(default_factory=dict)
    _num_taken: int = 0

    def bind(self, spec: TrialSpec) -> TrialStages:
        """Return the stages of a trial over made-up results."""
        store: Any = self
        return TrialStages(spec, self.context, store, self)

    def take(self) -> tuple[StageRequest, ...]:
        """Return the stages that were asked for since the last call."""
        taken = tuple(self._asked.values())[self._num_taken :]
        self._num_taken = len(self._asked)
        return taken

    def ensure(self, request: StageRequest) -> bool:
        """Note a stage."""
        if request.stage != "snapshot":
            self._asked.setdefault(request.key, request)
        return True

    def find(self, key: str) -> Any:
        """Return an entry with what a trial reads of one."""
        return _MadeUpEntry(key, self.context, self.scratch)


@dataclass(frozen=True)
class _MadeUpEntry:
    """What a trial reads of an entry of the store."""

    key: str
    context: TrialContext
    scratch: Path
    seconds: float = 0.0
    num_bytes: int = 0
    host: str = ""

    def read_json(self, name: str) -> dict[str, float]:
        """Return a metric that is better than a constant prediction's."""
        task = self.context.task
        return {"metric": task.floors["search"] + (1.0 if task.higher_is_better else -1.0)}

    def path(self, name: str) -> Path:
        """Write a random importance, which is read at once."""
        from safetensors.numpy import save_file

        importance = draw_importance(self.context.shape, seed_from_key(self.key))
        path = self.scratch / name
        save_file({str(kind): importance[kind].copy() for kind in UnitKind}, path)
        return path
