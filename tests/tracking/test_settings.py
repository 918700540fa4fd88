"""Parameters of runs."""

from __future__ import annotations

from distprune.tracking.settings import (
    MAX_VALUE_LENGTH,
    list_shared_parameters,
    list_trial_parameters,
)
from tests.tracking.events import make_spec


def test_searched_values_overrule_the_specification() -> None:
    parameters = list_trial_parameters(make_spec(), {"pruning.rewinding": 0.3, "plan": "cubic-5"})
    assert parameters["pruning.rewinding"] == "0.3"
    assert parameters["plan"] == "cubic-5"
    assert parameters["pruning.units"] == '["head", "neuron"]'


def test_settings_without_effect_are_left_out() -> None:
    spec = make_spec(mixing={"operator": "finetuned"})
    parameters = list_trial_parameters(spec, {})
    assert parameters["pruning.mixing.operator"] == "finetuned"
    assert "pruning.mixing.coefficient" not in parameters
    assert "pruning.mixing.coefficient" in list_trial_parameters(make_spec(), {})


def test_what_all_trials_share_belongs_to_the_study() -> None:
    shared = list_shared_parameters(make_spec())
    own = list_trial_parameters(make_spec(), {})
    assert shared["checkpoint"] == "demo:minilm"
    assert shared["fine_tuning.epochs"] == "3.0"
    assert not set(shared) & set(own)


def test_none_and_empty_values_are_left_out() -> None:
    shared = list_shared_parameters(make_spec())
    assert "task.text_pair" not in shared
    assert "fine_tuning.freeze" not in shared


def test_values_and_names_fit_the_limits() -> None:
    parameters = list_trial_parameters(make_spec(), {"a[0]": "x" * 9000})
    assert parameters["a_0_"] == "x" * MAX_VALUE_LENGTH
