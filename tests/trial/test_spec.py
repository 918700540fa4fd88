from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from distprune.methods.spec import Recipe
from distprune.trial.spec import Precision, TrialSpec, inherit_recipe

RETRAINING = {f"retraining.{name}" for name in Recipe.model_fields}
DISTILLATION = {"retraining.distillation.weight", "retraining.distillation.temperature"}


def make_spec(**settings: Any) -> TrialSpec:
    return TrialSpec.model_validate(
        {"checkpoint": "demo:minilm", "task": {"dataset": "demo:movies"}} | settings
    )


def test_retraining_inherits_from_fine_tuning() -> None:
    spec = make_spec(fine_tuning={"epochs": 7.0, "batch_size": 8}, retraining={"epochs": 1.0})
    assert spec.retraining.epochs == 1.0
    assert spec.retraining.batch_size == 8
    assert make_spec(fine_tuning={"epochs": 7.0}).retraining.epochs == 7.0
    assert make_spec(retraining={"epochs": 7.0}).fine_tuning.epochs == Recipe().epochs


def test_retraining_inherits_from_a_recipe_that_is_a_value() -> None:
    spec = make_spec(fine_tuning=Recipe(epochs=7.0, batch_size=8), retraining={"epochs": 1.0})
    assert (spec.retraining.epochs, spec.retraining.batch_size) == (1.0, 8)
    spec = make_spec(fine_tuning={"epochs": 7.0}, retraining=Recipe(batch_size=8))
    assert (spec.retraining.epochs, spec.retraining.batch_size) == (7.0, 8)


def test_a_whole_specification_is_read_back_as_it_is() -> None:
    spec = make_spec(fine_tuning={"epochs": 7.0}, retraining={"epochs": 1.0}, seed=3)
    assert TrialSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert spec.precision is Precision.AUTO


@pytest.mark.parametrize("values", [{}, {"fine_tuning": None}, {"fine_tuning": 3}])
def test_nothing_to_inherit(values: dict[str, Any]) -> None:
    assert inherit_recipe(values) == values


def test_bad_recipes_are_left_to_validation() -> None:
    with pytest.raises(ValidationError, match="retraining"):
        make_spec(fine_tuning={"epochs": 1.0}, retraining=3)


def test_the_dense_model_has_no_teacher() -> None:
    with pytest.raises(ValidationError, match=r"fine_tuning.distillation.weight must be 0"):
        make_spec(fine_tuning={"distillation": {"weight": 0.5}})
    assert make_spec(retraining={"distillation": {"weight": 0.5}}).retraining.distillation.weight


@pytest.mark.parametrize(
    ("settings", "inactive"),
    [
        ({}, {"retraining.distillation.temperature"}),
        ({"retraining": {"distillation": {"weight": 0.5}}}, set()),
        (
            {"retraining": {"distillation": {"weight": 0.5}, "steps": 10}},
            {"retraining.epochs"},
        ),
        (
            {"pruning": {"retraining": "never"}},
            {"pruning.rewinding", *RETRAINING, *DISTILLATION},
        ),
        (
            {
                "pruning": {"schedule": {"shape": "one_shot"}},
                "retraining": {"distillation": {"weight": 1.0}},
            },
            {"pruning.schedule.levels"},
        ),
    ],
)
def test_settings_without_effect(settings: dict[str, Any], inactive: set[str]) -> None:
    assert make_spec(**settings).inactive_settings() == inactive


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_seeds_fit_every_library(seed: int) -> None:
    with pytest.raises(ValidationError, match="seed"):
        make_spec(seed=seed)


def test_epochs_of_their_own_are_not_overruled_by_inherited_steps() -> None:
    base = {"checkpoint": "somewhere", "task": {"dataset": "demo:movies"}}
    recipe = {"steps": 100, "learning_rate": 1e-4}
    spec = TrialSpec.model_validate({**base, "fine_tuning": recipe, "retraining": {"epochs": 1}})
    assert (spec.retraining.steps, spec.retraining.epochs) == (None, 1)
    assert spec.retraining.learning_rate == 1e-4
    assert TrialSpec.model_validate({**base, "fine_tuning": recipe}).retraining.steps == 100
