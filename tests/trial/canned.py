"""Surroundings that are made up, so that a trial's requests can be looked at without training."""

from __future__ import annotations

from typing import Any

from distprune.core.mask import Mask
from distprune.models.checkpoint import CheckpointFacts
from distprune.store.store import Store
from distprune.tasks.prepared import TaskFacts
from distprune.trial.context import TrialContext
from distprune.trial.request import StageRequest
from distprune.trial.runner import run_trial
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import TrialStages
from tests.tiny_study import SHAPE
from tests.trial.studies import CannedExecutor

CHECKPOINT = CheckpointFacts(
    name="tiny",
    location="/models/tiny",
    fingerprint="c" * 64,
    model_type="bert",
    shape=SHAPE,
    has_mlm_head=True,
    vocabulary_size=60,
)
TASK = TaskFacts(
    kind="classification",
    num_labels=2,
    label_names=("bad", "good"),
    metric="accuracy",
    higher_is_better=True,
    counts={"train": 120, "search": 40, "report": 40},
    floors={"search": 0.5, "report": 0.5},
    mean_tokens={"train": 9.0, "search": 8.5, "report": 9.5},
    duplicates_dropped={"train": 0, "search": 0},
    source_fingerprint="d" * 64,
)
CONTEXT = TrialContext(
    checkpoint=CHECKPOINT,
    task=TASK,
    prepared="e" * 64,
    precision="float32",
    rewinding_points=(0.0, 0.5, 1.0),
)
DENSE = Mask.dense(SHAPE)


def make_stages(store: Store, context: TrialContext = CONTEXT, **settings: Any) -> TrialStages:
    values = {"checkpoint": "tiny", "task": {"dataset": "demo:movies"}} | settings
    spec = TrialSpec.model_validate(values)
    return TrialStages(spec, context, store, CannedExecutor(store))


def make_pruning(coefficient: float = 0.5, **settings: Any) -> dict[str, Any]:
    mixing = {"coefficient": coefficient}
    return {"schedule": {"shape": "one_shot"}, "mixing": mixing} | settings


def computed(stages: TrialStages) -> list[str]:
    return stages.executor.computed  # type: ignore[attr-defined]


def last_request(stages: TrialStages) -> StageRequest:
    return stages.executor.requests[-1]  # type: ignore[attr-defined]


def walk(stages: TrialStages) -> list[Mask]:
    return [result.mask for result in run_trial(stages)]
