"""Models that are as good as the units they keep: stages of a confirmation without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distprune.core.cost import measure_sparsities
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.library.leaderboard import LeaderboardRow
from distprune.library.outputs import OUTPUTS_FILE
from distprune.store.store import Store
from distprune.trial.request import StageRequest
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import METRICS_FILE, TrialStages
from tests.tiny_study import SHAPE
from tests.trial.canned import CONTEXT, TASK, make_pruning
from tests.trial.studies import CannedExecutor

NUM_EXAMPLES = 400
GOOD_NEURONS = np.arange(SHAPE.num_neurons) < SHAPE.num_neurons // 2
"""What decides the accuracy: 0.6 with none of these, 0.9 with all."""


@dataclass
class GradedExecutor(CannedExecutor):
    """Commits made-up results; the seed of a stage moves its accuracy by `noise` or so."""

    noise: float = 0.002

    def _writer(self, request: StageRequest) -> Callable[[Path], None]:
        if request.stage != "evaluate":
            return super()._writer(request)
        mask = Mask.unpack(request.settings["mask"])
        share = mask[UnitKind.NEURON][:, GOOD_NEURONS].mean()
        generator = np.random.default_rng(request.seed)
        accuracy = 0.6 + 0.3 * share + generator.normal(0.0, self.noise)
        return lambda folder: write_outputs(folder, accuracy)


def write_outputs(folder: Path, accuracy: float) -> None:
    """Write what an `evaluate` stage writes, with hits where an example is easy enough."""
    from safetensors.numpy import save_file

    difficulty = np.random.default_rng(0).permutation(NUM_EXAMPLES) / NUM_EXAMPLES
    labels = np.arange(NUM_EXAMPLES) % 2
    predictions = np.where(difficulty < accuracy, labels, 1 - labels)
    logits = np.eye(2, dtype=np.float32)[predictions]
    save_file({"logits": logits, "labels": labels}, folder / OUTPUTS_FILE)
    metric = float((predictions == labels).mean())
    (folder / METRICS_FILE).write_text(json.dumps({"metric": metric}))


def make_graded_stages(store: Store, noise: float = 0.002, **settings: Any) -> TrialStages:
    """Return the stages of a trial whose models are graded."""
    task = TASK.model_copy(update={"counts": {**TASK.counts, "report": NUM_EXAMPLES}})
    return TrialStages(
        make_spec(**settings),
        replace(CONTEXT, task=task),
        store,
        GradedExecutor(store, noise=noise),
    )


def make_spec(**settings: Any) -> TrialSpec:
    """Return a one-shot trial of half of the units, changed at the top."""
    values = {
        "checkpoint": "tiny",
        "task": {"dataset": "demo:movies"},
        "pruning": make_pruning(target_sparsity=0.5),
    }
    return TrialSpec.model_validate(values | settings)


def make_good_mask(num_heads: int = 4, good: bool = True) -> Mask:
    """Keep the good neurons, or only the others, and so many heads of all."""
    heads = np.arange(SHAPE.total(UnitKind.HEAD)) < num_heads
    neurons = np.tile(good == GOOD_NEURONS, (SHAPE.num_layers, 1))
    return Mask({UnitKind.HEAD: heads.reshape(SHAPE.num_layers, -1), UnitKind.NEURON: neurons})


def make_row(mask: Mask, milestone: float = 0.5, trial: int = 3, level: int = 1) -> LeaderboardRow:
    """Return the leaderboard's row of a mask."""
    return LeaderboardRow(
        milestone=milestone,
        trial=trial,
        level=level,
        search_metric=0.93,
        report_metric=0.91,
        retention=0.99,
        sparsities=measure_sparsities(SHAPE, mask, 8.0),
        parameters={"pruning.mixing.coefficient": 0.5},
    )


def run_inline(jobs: Sequence[Callable[[], Any]]) -> list[tuple[int, Any]]:
    """Run jobs one by one; the last first, since nobody may rely on their order."""
    return [(number, jobs[number]()) for number in reversed(range(len(jobs)))]
