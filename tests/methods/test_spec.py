"""Settings: what they refuse, and which of them have no effect."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from distprune.core.selection import Allocation
from distprune.core.units import UnitKind
from distprune.methods.spec import Distillation, PruningSpec, Recipe
from tests.methods.fake_stages import make_spec

MLM = {"importance.mlm_probability", "importance.mlm_draws"}
OBJECTIVE = {"importance.pretrained_objective", *MLM}
PRETRAINED = {"importance.pretrained_mask", *OBJECTIVE}
DATA = {"importance.estimator", "importance.examples", "importance.batch_size"}


@pytest.mark.parametrize(
    ("settings", "inactive"),
    [
        ({}, set()),
        ({"schedule": {"shape": "one_shot"}}, {"schedule.levels"}),
        ({"mixing": {"coefficient": 0.0}}, PRETRAINED),
        ({"mixing": {"coefficient": 1.0}}, set()),
        ({"mixing": {"operator": "finetuned"}}, {"mixing.coefficient", *PRETRAINED}),
        ({"mixing": {"operator": "pretrained"}}, {"mixing.coefficient"}),
        ({"mixing": {"operator": "mask_union"}}, {"mixing.coefficient"}),
        ({"mixing": {"operator": "geometric", "coefficient": 0.0}}, PRETRAINED),
        ({"importance": {"pretrained_objective": "mlm"}}, set()),
        ({"importance": {"pretrained_objective": "task_probe"}}, MLM),
        ({"importance": {"pretrained_objective": "task_head"}}, MLM),
        ({"importance": {"criterion": "fisher"}}, set()),
        ({"importance": {"criterion": "magnitude"}}, {*DATA, *PRETRAINED}),
        (
            {"importance": {"criterion": "random"}},
            {
                *("mixing.operator", "mixing.coefficient", "importance.normalisation"),
                *DATA,
                *PRETRAINED,
            },
        ),
        ({"retraining": "never"}, {"rewinding"}),
        ({"retraining": "last_level"}, set()),
    ],
)
def test_settings_without_effect(settings: dict[str, Any], inactive: set[str]) -> None:
    assert make_spec(**settings).inactive_settings() == inactive


@pytest.mark.parametrize(
    "settings",
    [{"importance": {"criterion": "random"}, "retraining": "never"}, {"schedule": {"levels": 1}}],
)
def test_settings_without_effect_exist(settings: dict[str, Any]) -> None:
    for name in make_spec(**settings).inactive_settings():
        place: type[BaseModel] = PruningSpec
        *groups, last = name.split(".")
        for group in groups:
            annotation = place.model_fields[group].annotation
            assert annotation is not None
            place = annotation
        assert last in place.model_fields


@pytest.mark.parametrize(
    ("settings", "place", "rule"),
    [
        ({"target_sparsity": 0.0}, ("target_sparsity",), "greater than 0"),
        ({"target_sparsity": 1.0}, ("target_sparsity",), "less than 1"),
        ({"schedule": {"levels": 0}}, ("schedule", "levels"), "greater than or equal to 1"),
        ({"schedule": {"shape": "lineal"}}, ("schedule", "shape"), "'one_shot', 'linear'"),
        ({"mixing": {"coefficient": 1.5}}, ("mixing", "coefficient"), "less than or equal to 1"),
        ({"importance": {"mlm_draws": 0}}, ("importance", "mlm_draws"), "greater than or equal"),
        ({"importance": {"criterion": "hessian"}}, ("importance", "criterion"), "'abs_gradient'"),
        ({"retraining": "sometimes"}, ("retraining",), "'every_level', 'last_level' or 'never'"),
        ({"method": "magic"}, ("method",), "'iterative'"),
        ({"units": []}, (), "units must name head, neuron or both, each once"),
        ({"units": ["head", "head"]}, (), "each once"),
        ({"units": ["block"]}, ("units", 0), "'head' or 'neuron'"),
        ({"levels": 3}, ("levels",), "Extra inputs are not permitted"),
        ({"selection": {"min_heads": 3}}, ("selection", "min_heads"), "Extra inputs"),
    ],
)
def test_bad_settings_are_refused(settings: Any, place: tuple[Any, ...], rule: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PruningSpec.model_validate(settings)
    (problem,) = caught.value.errors()
    assert problem["loc"] == place
    assert rule in problem["msg"]


@pytest.mark.parametrize("value", [-0.1, 1.1, "back"])
def test_rewinding_is_a_fraction_or_continue(value: Any) -> None:
    with pytest.raises(ValidationError, match="rewinding"):
        PruningSpec(rewinding=value)
    assert PruningSpec(rewinding="continue").rewinding == "continue"
    assert PruningSpec(rewinding=1).rewinding == 1.0


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"epochs": 0.0}, "epochs"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": 1.0}, "learning_rate"),
        ({"warmup": 1.0}, "warmup"),
        ({"batch_size": 0}, "batch_size"),
        ({"freeze": ["pooler"]}, "freeze"),
        ({"schedule": "square"}, "schedule"),
        ({"distillation": {"weight": 1.1}}, "distillation"),
        ({"distillation": {"temperature": 0.0}}, "distillation"),
    ],
)
def test_bad_recipes_are_refused(settings: Any, name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(settings)
    (problem,) = caught.value.errors()
    assert problem["loc"][0] == name


def test_settings_are_values() -> None:
    spec = make_spec(units=["neuron"], rewinding=0.25)
    assert PruningSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert hash(Recipe()) == hash(Recipe(distillation=Distillation()))
    with pytest.raises(ValidationError, match="frozen"):
        spec.rewinding = 0.5  # type: ignore[misc]


def test_the_rule_of_selection_says_what_the_settings_say() -> None:
    spec = make_spec(
        units=("head",),
        selection={
            "allocation": "joint_macs",
            "min_heads_per_layer": 1,
            "min_neurons_per_layer": 3,
        },
    )
    rule = spec.selection_rule(12.5)
    assert rule.kinds == (UnitKind.HEAD,)
    assert rule.allocation is Allocation.JOINT_MACS
    assert (rule.floor(UnitKind.HEAD), rule.floor(UnitKind.NEURON)) == (1, 3)
    assert rule.num_tokens == 12.5


def test_the_last_level_meets_the_target() -> None:
    assert make_spec(target_sparsity=0.3).sparsities == pytest.approx((0.1, 0.2, 0.3))
    assert make_spec(schedule={"shape": "one_shot", "levels": 7}).sparsities == (0.5,)


@pytest.mark.parametrize("value", [True, False, "0.4"])
def test_what_is_no_number_is_not_read_as_one(value: object) -> None:
    with pytest.raises(ValidationError, match=r"number|yes or no"):
        PruningSpec.model_validate({"target_sparsity": value})
    with pytest.raises(ValidationError, match=r"number|yes or no"):
        PruningSpec.model_validate({"schedule": {"levels": value}})
