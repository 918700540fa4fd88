"""Trials on the tiny checkpoint and task, and executors that tell what was computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.methods.ticket import WeightsReference
from distprune.store.store import Store
from distprune.trial.context import TrialContext
from distprune.trial.executor import run_stage
from distprune.trial.request import StageRequest
from distprune.trial.resolve import resolve_context
from distprune.trial.results import LevelResult
from distprune.trial.runner import run_trial
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import IMPORTANCE_FILE, METRICS_FILE, WEIGHTS_FILE, TrialStages
from distprune.trial.work import batches, weights
from tests.tiny_study import SHAPE

QUICK = {"steps": 8, "learning_rate": 3e-3, "batch_size": 16}
"""Enough to change every weight."""
LEARNING = {"epochs": 6.0, "learning_rate": 3e-3, "batch_size": 16}
"""Enough to learn the task."""


@dataclass(frozen=True)
class TinyStudy:
    """A checkpoint, a task and a store to run trials on."""

    checkpoint: Path
    dataset: Path
    store: Store
    rewinding_points: tuple[float, ...] = (0.5,)

    def make_spec(self, **settings: Any) -> TrialSpec:
        """Make a quick trial of two levels, unless `settings` say otherwise."""
        values: dict[str, Any] = {
            "checkpoint": str(self.checkpoint),
            "task": {"dataset": str(self.dataset), "max_length": 16},
            "pruning": {"schedule": {"levels": 2}, "importance": {"examples": 32}},
            "fine_tuning": QUICK,
            "precision": "float32",
        }
        return TrialSpec.model_validate(values | settings)

    def resolve(self, spec: TrialSpec) -> TrialContext:
        return resolve_context(spec, self.store, self.rewinding_points, uses_gpu=False)

    def make_stages(self, **settings: Any) -> TrialStages:
        """Bind a trial to its store; its executor counts."""
        spec = self.make_spec(**settings)
        return TrialStages(spec, self.resolve(spec), self.store, CountingExecutor(self.store))

    def run(self, **settings: Any) -> list[LevelResult]:
        return list(run_trial(self.make_stages(**settings)))

    def at(self, store: Path) -> TinyStudy:
        """Return the same study in a store of its own."""
        return replace(self, store=Store(str(store)))


@dataclass
class CountingExecutor:
    """Runs stages in this process; `computed` names those that were not stored."""

    store: Store
    computed: list[str] = field(default_factory=list)

    def ensure(self, request: StageRequest) -> bool:
        ran = run_stage(request, self.store)
        if ran:
            self.computed.append(request.stage)
        return ran


@dataclass
class CannedExecutor:
    """Commits made-up results, decided by the key: no model is trained."""

    store: Store
    metric: float = 0.75
    requests: list[StageRequest] = field(default_factory=list)

    @property
    def computed(self) -> list[str]:
        return [request.stage for request in self.requests]

    def ensure(self, request: StageRequest) -> bool:
        if self.store.find(request.key) is not None:
            return False
        self.requests.append(request)
        self.store.commit(request.key, self._writer(request), request.identity)
        return True

    def _writer(self, request: StageRequest) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            if request.stage == "score":
                write_importance(folder / IMPORTANCE_FILE, request.seed)
            elif request.stage == "evaluate":
                (folder / METRICS_FILE).write_text(json.dumps({"metric": self.metric}))
            else:
                (folder / WEIGHTS_FILE).write_text(request.stage)

        return write


def write_importance(path: Path, seed: int) -> None:
    from safetensors.numpy import save_file

    generator = np.random.default_rng(seed)
    save_file(
        {
            str(kind): generator.random((SHAPE.num_layers, SHAPE.units_per_layer(kind)))
            for kind in UnitKind
        },
        path,
    )


def weights_path(store: Store, weights: WeightsReference) -> Path:
    entry = store.find(weights.key)
    assert entry is not None
    return entry.path(weights.file)


def hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def keep(heads: int, neurons: int, seed: int = 0) -> Mask:
    """Keep so many units of the tiny checkpoint, drawn at random."""
    generator = np.random.default_rng(seed)
    kept = {}
    for kind, count in zip(UnitKind, (heads, neurons), strict=True):
        flat = np.zeros(SHAPE.total(kind), dtype=np.bool_)
        flat[generator.permutation(flat.size)[:count]] = True
        kept[kind] = flat.reshape(SHAPE.num_layers, -1)
    return Mask(kept)


def forget_models() -> None:
    """Drop what a process keeps from stage to stage, as a new process would."""
    weights._load_template.cache_clear()
    batches.make_collator.cache_clear()


def summarise(result: LevelResult) -> tuple[Any, ...]:
    return result.level, result.sparsity, result.mask, result.metric, result.lineage
