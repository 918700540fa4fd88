"""Resolving: facts about checkpoint and task are found before anything is trained.

So bad input fails here. Also the reference that a study's trials are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distprune.core.importance_scores import Importance
from distprune.core.mask import Mask
from distprune.core.retention import Reference
from distprune.core.selection import Allocation, SelectionRule, num_removed, select
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import CheckpointError, ConfigError, StudyFailedError
from distprune.methods.spec import PruningSpec
from distprune.methods.ticket import Ticket
from distprune.models.checkpoint import CheckpointFacts, inspect_checkpoint
from distprune.store.store import Store
from distprune.tasks.prepared import PreparedTask, TaskFacts
from distprune.tasks.sources import source_fingerprint
from distprune.trial.context import TrialContext
from distprune.trial.executor import InProcessExecutor
from distprune.trial.request import StageRequest
from distprune.trial.spec import Precision, TrialSpec
from distprune.trial.stages import TrialStages, resolve_objective

FAST_BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")
"""CPU features with which bfloat16 is multiplied faster than float32."""


def resolve_context(
    spec: TrialSpec, store: Store, rewinding_points: Sequence[float], uses_gpu: bool
) -> TrialContext:
    """Inspect the checkpoint and prepare the task.

    Args:
        spec: Any trial of the study; checkpoint, task and precision are the same for all.
        store: Gets the prepared task.
        rewinding_points: Fractions of the dense fine-tuning that any trial can rewind to.
        uses_gpu: Whether stages get a GPU.

    Raises:
        InputError: Checkpoint or data cannot be used.
    """
    checkpoint = inspect_checkpoint(spec.checkpoint)
    _check_length(spec, checkpoint)
    preparation = _request_preparation(spec, checkpoint)
    InProcessExecutor(store).ensure(preparation)
    entry = store.find(preparation.key)
    assert entry is not None  # it was stored, or verified, a moment ago
    task = PreparedTask.open(entry.path("facts.json").parent).facts
    _check_head(checkpoint, task)
    return TrialContext(
        checkpoint=checkpoint,
        task=task,
        prepared=preparation.key,
        precision=resolve_precision(spec.precision, uses_gpu),
        rewinding_points=tuple(sorted({*rewinding_points, 0.0, 1.0})),
        preparation=preparation,
    )


def _check_length(spec: TrialSpec, checkpoint: CheckpointFacts) -> None:
    if checkpoint.max_tokens is not None and spec.task.max_length > checkpoint.max_tokens:
        raise ConfigError(
            f"task.max_length: {spec.task.max_length} tokens, must be at most the "
            f"{checkpoint.max_tokens} positions of {checkpoint.name!r}; lower it"
        )


def _check_head(checkpoint: CheckpointFacts, task: TaskFacts) -> None:
    if checkpoint.head_outputs not in (None, task.num_labels):
        raise CheckpointError(
            f"checkpoint: the head of {checkpoint.name!r} has {checkpoint.head_outputs} outputs "
            f"and the task needs {task.num_labels}; choose a task with its labels, or save the "
            "body alone (AutoModel.from_pretrained(...).save_pretrained(...)) for a new head"
        )


def check_pruning(spec: PruningSpec, context: TrialContext) -> None:
    """Check what only the model can tell: levels, floors and the pre-trained objective.

    Raises:
        ConfigError: More levels than units, or a floor above the target.
        CheckpointError: `mlm` without a head of the checkpoint's own.
    """
    if spec.sources[0] and spec.importance.criterion.needs_data:
        resolve_objective(spec.importance.pretrained_objective, context.checkpoint)
    rule = spec.selection_rule(context.num_tokens)
    if rule.allocation is not Allocation.SEPARATE:
        _check_joint_floors(spec.target_sparsity, rule, context.shape)
        return
    _check_levels(spec, context.shape)
    for kind in spec.units:
        total = context.shape.total(kind)
        floor = rule.floor(kind) * context.shape.num_layers
        if floor > total - num_removed(spec.target_sparsity, total):
            raise ConfigError(
                f"pruning.selection.min_{kind}s_per_layer: {rule.floor(kind)} in "
                f"{context.shape.num_layers} layers cannot be kept at sparsity "
                f"{spec.target_sparsity:g} of {total}; lower one of them"
            )


def _check_levels(spec: PruningSpec, shape: EncoderShape) -> None:
    totals = [shape.total(kind) for kind in spec.units]
    counts = [
        tuple(num_removed(sparsity, total) for total in totals)
        for sparsity in (0.0, *spec.sparsities)
    ]
    idle = [level for level in range(1, len(counts)) if counts[level] == counts[level - 1]]
    if idle:
        units = " and ".join(f"{shape.total(kind)} {kind}s" for kind in spec.units)
        raise ConfigError(
            f"pruning.schedule.levels: {len(spec.sparsities)}; each level removes a unit at least, "
            f"and {spec.schedule.shape} to sparsity {spec.target_sparsity:g} removes none of "
            f"{units} at level {idle[0]}; use fewer levels"
        )


def _check_joint_floors(target_sparsity: float, rule: SelectionRule, shape: EncoderShape) -> None:
    """Select once with equal scores; whether the floors leave enough does not depend on them."""
    dense = Mask.dense(shape)
    equal = Importance({kind: dense[kind].astype("float64") for kind in UnitKind})
    select(equal, dense, shape, target_sparsity, rule)


def measure_reference(stages: TrialStages) -> tuple[Ticket, Reference]:
    """Train and evaluate the dense model that all trials are compared with.

    Raises:
        StudyFailedError: It is no better than the constant predictor, so there is nothing to prune.
    """
    ticket = stages.dense()
    task = stages.context.task
    reference = Reference(
        dense=stages.evaluate(ticket).metric,
        floor=task.floors["search"],
        higher_is_better=task.higher_is_better,
    )
    if not reference.is_usable:
        raise StudyFailedError(
            f"dense model: {task.metric} {reference.dense:.4g} on the search split is no better "
            f"than a constant prediction ({reference.floor:.4g}); nothing was pruned; train longer "
            "(fine_tuning.epochs) or with another fine_tuning.learning_rate"
        )
    return ticket, reference


def resolve_precision(precision: Precision, uses_gpu: bool) -> str:
    """Return `float32` or `bfloat16`; `auto` asks the hardware of this machine."""
    if precision is not Precision.AUTO:
        return str(precision)
    is_fast = _gpu_is_fast() if uses_gpu else _cpu_is_fast()
    return str(Precision.BFLOAT16 if is_fast else Precision.FLOAT32)


def _gpu_is_fast() -> bool:
    import torch

    # Ampere and later; before it, torch emulates bfloat16.
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def _cpu_is_fast() -> bool:
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return False
    flags = information.read_text().split()
    return any(flag in flags for flag in FAST_BFLOAT16_FLAGS)


def _request_preparation(spec: TrialSpec, checkpoint: CheckpointFacts) -> StageRequest:
    task: dict[str, Any] = spec.task.model_dump(mode="json")
    dataset = task.pop("dataset")
    return StageRequest(
        stage="prepare",
        settings={
            "task": task,
            "source": source_fingerprint(spec.task),
            "tokenizer": checkpoint.fingerprint,
            "vocabulary_size": checkpoint.vocabulary_size,
        },
        places={"checkpoint": checkpoint.location, "dataset": dataset},
    )
