"""The specification of one trial: everything that decides its numbers, and nothing else."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from distprune.methods.spec import PruningSpec, Recipe, Retraining, Spec
from distprune.tasks.spec import TaskSpec


class Precision(StrEnum):
    """Arithmetic of the forward and backward pass; weights and statistics stay float32."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class TrialSpec(Spec):
    """One configuration. A retraining recipe inherits what it does not say from `fine_tuning`."""

    checkpoint: str = Field(min_length=1)
    """A hub id, a local folder, or `demo:minilm`."""
    task: TaskSpec
    """The data, its columns, splits and metric."""
    pruning: PruningSpec = PruningSpec()
    """The pruning loop."""
    fine_tuning: Recipe = Recipe()
    """Recipe of the dense fine-tuning; the study's reference, so it is not searched."""
    retraining: Recipe = Recipe()
    """Recipe of the training after pruning."""
    precision: Precision = Precision.AUTO
    """`auto`: bfloat16 where the hardware multiplies it fast, else float32."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the replicate; the seeds of stages derive from it and from what they compute."""

    @model_validator(mode="before")
    @classmethod
    def _inherit_recipe(cls, values: Any) -> Any:
        return inherit_recipe(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check_recipes(self) -> TrialSpec:
        if self.fine_tuning.distillation.weight > 0:
            raise ValueError(
                "fine_tuning.distillation.weight must be 0: the dense model has no teacher; "
                "set it under retraining"
            )
        return self

    def inactive_settings(self) -> frozenset[str]:
        """Return the dotted names of settings without effect, given the others."""
        names = {f"pruning.{name}" for name in self.pruning.inactive_settings()}
        if self.pruning.retraining is Retraining.NEVER:
            names |= {f"retraining.{name}" for name in Recipe.model_fields}
            names |= {"retraining.distillation.weight", "retraining.distillation.temperature"}
        if self.retraining.distillation.weight == 0.0:
            names.add("retraining.distillation.temperature")
        if self.retraining.steps is not None:
            names.add("retraining.epochs")
        return frozenset(names)


def inherit_recipe(values: dict[str, Any]) -> dict[str, Any]:
    """Return a trial tree whose `retraining` is filled up from `fine_tuning`."""
    dense, again = (_as_tree(values.get(name)) for name in ("fine_tuning", "retraining"))
    if not isinstance(dense, dict) or not isinstance(again, dict | None):
        return values
    again = again or {}
    if "epochs" in again and "steps" not in again:
        # Inherited steps would overrule the epochs that are asked for.
        dense = {name: value for name, value in dense.items() if name != "steps"}
    return {**values, "retraining": {**dense, **again}}


def _as_tree(recipe: Any) -> Any:
    """Return what a recipe says of its own, without the defaults."""
    return recipe.model_dump(exclude_unset=True) if isinstance(recipe, Recipe) else recipe
