"""Problems of a file: all at once, one line each, with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from distprune.errors import ConfigError
from distprune.methods.spec import PruningSpec
from distprune.trial.spec import TrialSpec
from distprune.trial.validation import suggest_name, validate_settings

TRIAL = {"checkpoint": "demo:minilm", "task": {"dataset": "demo:movies"}}


def describe(values: dict[str, Any], prefix: str = "trial") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate_settings(TrialSpec, values, prefix)
    return str(caught.value).splitlines()


def test_good_settings_are_built() -> None:
    spec = validate_settings(PruningSpec, {"rewinding": "continue"})
    assert spec == PruningSpec(rewinding="continue")


def test_all_problems_at_once() -> None:
    lines = describe(
        {
            "task": {"dataset": "demo:movies", "max_length": 2},
            "pruning": {"schedule": {"levels": 0, "shap": "linear"}},
            "seed": "x",
        }
    )
    names = [line.split(":")[0] for line in lines]
    assert sorted(names) == [
        "trial.checkpoint",
        "trial.pruning.schedule.levels",
        "trial.pruning.schedule.shap",
        "trial.seed",
        "trial.task.max_length",
    ]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"pruning": {"mixing": {"coeficient": 0.5}}},
            "trial.pruning.mixing.coeficient: unknown name; did you mean 'coefficient'?",
        ),
        (
            {"pruning": {"mixing": {"zzz": 0.5}}},
            "trial.pruning.mixing.zzz: unknown name; known names: coefficient, operator",
        ),
        ({"chekpoint": "x"}, "trial.chekpoint: unknown name; did you mean 'checkpoint'?"),
        (
            {"pruning": {"target_sparsity": 1.5}},
            "trial.pruning.target_sparsity: 1.5 should be less than 1; correct it",
        ),
        (
            {"pruning": {"units": []}},
            "trial.pruning: units must name head, neuron or both, each once; correct it",
        ),
    ],
)
def test_a_problem_is_one_line(values: dict[str, Any], line: str) -> None:
    assert describe(TRIAL | values) == [line]


def test_a_missing_value() -> None:
    lines = describe({"task": {"dataset": "demo:movies"}})
    assert lines == ["trial.checkpoint: missing; give it a value"]


def test_the_branches_of_a_choice_are_not_named() -> None:
    lines = describe(TRIAL | {"pruning": {"rewinding": 1.5}})
    assert all(line.startswith("trial.pruning.rewinding: 1.5 ") for line in lines)
    assert any("less than or equal to 1" in line for line in lines)


def test_names_without_a_prefix() -> None:
    (line,) = describe(TRIAL | {"seed": -1}, prefix="")
    assert line.startswith("seed: -1 ")


def test_suggestions() -> None:
    assert suggest_name("epoch", ["epochs", "steps"]) == "did you mean 'epochs'?"
    assert suggest_name("q", ["steps", "epochs"]) == "known names: epochs, steps"
