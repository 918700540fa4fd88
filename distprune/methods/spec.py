"""Settings of pruning and of training. Values only: read from a file, sampled, hashed, compared."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from distprune.core.importance_scores import Criterion, Estimator, Normalisation
from distprune.core.mixing import MixingOperator, sources_needed
from distprune.core.schedule import ScheduleShape, level_sparsities
from distprune.core.selection import Allocation, SelectionRule
from distprune.core.units import UnitKind

NUMBERS = (int, float, int | None, float | None)
"""Annotations of settings that are numbers and nothing else."""


class Spec(BaseModel):
    """An immutable group of settings; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_what_is_no_number(cls, value: Any, information: ValidationInfo) -> Any:
        """Refuse `yes` and quoted numbers, which would be read as numbers otherwise."""
        if isinstance(value, bool):
            raise ValueError("is yes or no; no setting is")
        name = information.field_name or ""
        if isinstance(value, str) and cls.model_fields[name].annotation in NUMBERS:
            raise ValueError("must be a number; write it without quotes")
        return value


class PretrainedObjective(StrEnum):
    """The loss whose gradient is the importance of the pre-trained model."""

    AUTO = "auto"
    MLM = "mlm"
    TASK_PROBE = "task_probe"
    TASK_HEAD = "task_head"


class Retraining(StrEnum):
    """After which levels the model is trained again."""

    EVERY_LEVEL = "every_level"
    LAST_LEVEL = "last_level"
    NEVER = "never"


class Distillation(Spec):
    """Learn from the dense fine-tuned model beside the labels."""

    weight: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the distillation loss, the rest is the task loss; 0 = no distillation."""
    temperature: float = Field(2.0, gt=0.0)
    """Softens both distributions; the loss is scaled by its square."""


class Recipe(Spec):
    """How a model is trained; one type for dense fine-tuning and for retraining."""

    epochs: float = Field(3.0, gt=0.0)
    """Passes over the training split; fractions are allowed."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps; overrules `epochs` where given."""
    learning_rate: float = Field(5e-5, gt=0.0, lt=1.0)
    """Peak learning rate of AdamW."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the learning rate after warm-up."""
    warmup: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the steps over which the learning rate rises from zero."""
    weight_decay: float = Field(0.01, ge=0.0)
    """Decoupled weight decay; biases and layer norms have none."""
    batch_size: int = Field(32, ge=1)
    """Examples per optimiser step."""
    gradient_clip: float = Field(1.0, gt=0.0)
    """Largest norm of the gradient."""
    freeze: tuple[Literal["embeddings", "encoder"], ...] = ()
    """Parts that keep their weights: `embeddings`, `encoder` (all Transformer layers)."""
    distillation: Distillation = Distillation()


class ScheduleSpec(Spec):
    """The sparsity of each level."""

    shape: ScheduleShape = ScheduleShape.LINEAR
    """`one_shot`, `linear`, `geometric` or `cubic`."""
    levels: int = Field(5, ge=1, le=1000)
    """Levels of score, prune and retrain; `one_shot` has one."""


class ImportanceSpec(Spec):
    """How a unit's importance is measured."""

    criterion: Criterion = Criterion.ABS_GRADIENT
    """`abs_gradient`, `fisher`, `magnitude` or `random`."""
    estimator: Estimator = Estimator.EXAMPLE
    """Over what a gradient is summed before its magnitude is taken."""
    normalisation: Normalisation = Normalisation.L2
    """Per-layer normalisation of each source."""
    examples: int = Field(512, ge=1)
    """Training examples that are scored; the whole split if it has fewer."""
    batch_size: int = Field(32, ge=1)
    """Examples per backward pass."""
    pretrained_objective: PretrainedObjective = PretrainedObjective.AUTO
    """`mlm` (only with the checkpoint's own head), `task_probe`, `task_head`; `auto`: `mlm` where
    the checkpoint brings its head, else `task_probe`."""
    pretrained_mask: Literal["coupled", "static"] = "coupled"
    """Score the pre-trained model under the current mask, or once without one."""
    mlm_probability: float = Field(0.15, gt=0.0, lt=1.0)
    """Share of the tokens that are masked (of them 80 % masked, 10 % random, 10 % kept)."""
    mlm_draws: int = Field(2, ge=1, le=64)
    """Different maskings of each example."""


class MixingSpec(Spec):
    """How the two sources become one importance."""

    operator: MixingOperator = MixingOperator.CONVEX
    """`convex`, `geometric`, `rank_average`, `max`, `min`, `mask_union`, `mask_intersection`, or
    one source alone: `finetuned`, `pretrained`."""
    coefficient: float = Field(0.5, ge=0.0, le=1.0)
    """λ: 0 = fine-tuned importance alone, 1 = pre-trained importance alone."""


class SelectionSpec(Spec):
    """Which units the level's sparsity takes."""

    allocation: Allocation = Allocation.SEPARATE
    """`separate`: heads and neurons each meet it; `joint_parameters`, `joint_macs`: together."""
    min_heads_per_layer: int = Field(0, ge=0)
    """Heads that every layer keeps."""
    min_neurons_per_layer: int = Field(0, ge=0)
    """Neurons that every layer keeps."""


class PruningSpec(Spec):
    """The pruning loop; the thesis' methods are settings of it (Achlatis 2021, our reconstruction).

    Iterative Structural Pruning: `retraining: every_level` with a rewinding point. The lottery
    ticket mode: `retraining: last_level` with `rewinding: 0.0`. Pruning alone: `retraining: never`.
    """

    method: Literal["iterative"] = "iterative"
    """Name in `distprune.methods.registry`."""
    units: tuple[UnitKind, ...] = (UnitKind.HEAD, UnitKind.NEURON)
    """Kinds of unit that may be removed."""
    target_sparsity: float = Field(0.5, gt=0.0, lt=1.0)
    """Removed / total units at the end."""
    schedule: ScheduleSpec = ScheduleSpec()
    importance: ImportanceSpec = ImportanceSpec()
    mixing: MixingSpec = MixingSpec()
    selection: SelectionSpec = SelectionSpec()
    rewinding: Annotated[float, Field(ge=0.0, le=1.0)] | Literal["continue"] = 0.0
    """Where retraining starts: a fraction of the dense fine-tuning, or `continue` from the level
    before."""
    retraining: Retraining = Retraining.EVERY_LEVEL
    """`every_level`, `last_level` or `never`."""

    @model_validator(mode="after")
    def _check_units(self) -> PruningSpec:
        if not self.units or len(set(self.units)) != len(self.units):
            raise ValueError("units must name head, neuron or both, each once")
        return self

    @property
    def sparsities(self) -> tuple[float, ...]:
        """Sparsity of each level after level 0."""
        return level_sparsities(self.schedule.shape, self.schedule.levels, self.target_sparsity)

    @property
    def sources(self) -> tuple[bool, bool]:
        """Whether the (pre-trained, fine-tuned) importance takes part."""
        if self.importance.criterion is Criterion.RANDOM:
            return False, True
        return sources_needed(self.mixing.operator, self.mixing.coefficient)

    def selection_rule(self, num_tokens: float) -> SelectionRule:
        """Return the rule of `distprune.core.selection` that these settings describe."""
        return SelectionRule(
            kinds=self.units,
            allocation=self.selection.allocation,
            min_per_layer={
                UnitKind.HEAD: self.selection.min_heads_per_layer,
                UnitKind.NEURON: self.selection.min_neurons_per_layer,
            },
            num_tokens=num_tokens,
        )

    def inactive_settings(self) -> frozenset[str]:
        """Return the dotted names of settings without effect, given the others."""
        names: set[str] = set()
        is_random = self.importance.criterion is Criterion.RANDOM
        if self.schedule.shape is ScheduleShape.ONE_SHOT:
            names.add("schedule.levels")
        if is_random:
            names |= {"mixing.operator", "importance.normalisation"}
        if is_random or not self.mixing.operator.takes_coefficient:
            names.add("mixing.coefficient")
        if not self.importance.criterion.needs_data:
            names |= {
                "importance.estimator",
                "importance.examples",
                "importance.batch_size",
                "importance.pretrained_objective",
            }
        # A magnitude is that of the unit's own weights, under any mask.
        if not self.sources[0] or not self.importance.criterion.needs_data:
            names |= {"importance.pretrained_objective", "importance.pretrained_mask"}
        if "importance.pretrained_objective" in names or (
            self.importance.pretrained_objective
            not in (PretrainedObjective.AUTO, PretrainedObjective.MLM)
        ):
            names |= {"importance.mlm_probability", "importance.mlm_draws"}
        if self.retraining is Retraining.NEVER:
            names.add("rewinding")
        return frozenset(names)
