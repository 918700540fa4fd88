"""Bad study files: every problem at once, one line each, before anything is started."""

from __future__ import annotations

from typing import Any

import pytest

from distprune.errors import ConfigError
from distprune.search.study_file import check_study
from tests.search.synthetic import study_values, trial_values


def find_problems(values: dict[str, Any]) -> list[str]:
    """Return the lines that a file with these values is refused with."""
    with pytest.raises(ConfigError) as caught:
        check_study(values)
    return str(caught.value).splitlines()


def study_with(**pruning: Any) -> dict[str, Any]:
    return study_values(trial=trial_values(**pruning))


def test_every_problem_at_once() -> None:
    """At the top, in a trial's settings at several depths, in ranges and in the first trials."""
    trial = trial_values(
        mixing={"coefficient": {"uniform": [0.5, 1.5]}},
        schedule={"levels": {"int": [3, 2]}, "shap": "linear"},
        importance={"estimator": "exampel"},
    )
    trial["task"] = {"dataset": "a.csv", "txt": "body", "max_length": 4}
    trial["seed"] = {"int": [0, 3]}
    values = study_values(trial=trial, num_trials=0, smapler={"name": "tpe"})
    values["stopping"] = {"reduction_factor": 1, "grace": 2}
    names = [line.split(":")[0] for line in find_problems(values)]
    assert sorted(names) == [
        "num_trials",
        "smapler",
        "stopping.grace",
        "stopping.reduction_factor",
        "trial.pruning.importance.estimator",
        "trial.pruning.schedule.levels",
        "trial.pruning.schedule.shap",
        "trial.task.max_length",
        "trial.task.txt",
    ]
    trial["pruning"]["schedule"] = {"levels": {"int": [2, 3]}}
    names = [line.split(":")[0] for line in find_problems(values)]
    assert {"trial.pruning.mixing.coefficient", "trial.seed"} < set(names)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (study_values(nam_trials=3), "nam_trials: unknown name; did you mean 'num_trials'?"),
        (study_values(sampler={"nme": "tpe"}), "sampler.nme: unknown name; did you mean 'name'?"),
        (
            study_values(resources={"cpus_per_stag": 1}),
            "resources.cpus_per_stag: unknown name; did you mean 'cpus_per_stage'?",
        ),
        (
            study_with(importance={"estimater": "token"}),
            "trial.pruning.importance.estimater: unknown name; did you mean 'estimator'?",
        ),
        (
            study_values(trial=trial_values() | {"task": {"dataset": "a.csv", "lable": "y"}}),
            "trial.task.lable: unknown name; did you mean 'label'?",
        ),
        (
            study_values(start_with=[{}, {"pruning.mixing.coeficient": 0.5}]),
            "start_with.1.pruning.mixing.coeficient: not a searched setting; did you mean "
            "'pruning.mixing.coefficient'?",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value.split(":")[0],
)
def test_unknown_name_is_told_the_nearest(values: dict[str, Any], line: str) -> None:
    assert find_problems(values) == [line]


@pytest.mark.parametrize(
    ("given", "received", "rule"),
    [
        (1.5, "1.5", "less than or equal to 1"),
        (-0.1, "-0.1", "greater than or equal to 0"),
        ({"uniform": [0.5, 1.5]}, "1.5", "less than or equal to 1"),
        ({"uniform": [-1, 0.5]}, "-1", "greater than or equal to 0"),
        ({"choice": [0.0, 2.0, 0.5]}, "2.0", "less than or equal to 1"),
    ],
)
def test_mixing_coefficient_outside_also_inside_a_range(
    given: Any, received: str, rule: str
) -> None:
    (line,) = find_problems(study_with(mixing={"coefficient": given}))
    assert line.startswith(f"trial.pruning.mixing.coefficient: {received} ")
    assert rule in line


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint",
        "precision",
        "seed",
        "task.dataset",
        "task.max_length",
        "fine_tuning.epochs",
        "pruning.target_sparsity",
        "pruning.units",
        "pruning.method",
        "pruning",
        "task",
        "fine_tuning",
    ],
)
def test_what_makes_trials_comparable_is_no_range(name: str) -> None:
    first = {"pruning": {"target_sparsity": 0.6}, "task": {"dataset": "a.csv"}, "fine_tuning": {}}
    values = study_values()
    tree = values["trial"]
    *path, last = name.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[last] = {"choice": [first.get(name, 1), first.get(name, 2)]}
    assert any(
        line.startswith(f"trial.{name}: a range; all trials of a study must share it")
        for line in find_problems(values)
    )


def test_trial_itself_is_no_range() -> None:
    trials = [trial_values(), trial_values(target_sparsity=0.4)]
    lines = find_problems(study_values(trial={"choice": trials}))
    assert any(line.startswith("trial: a range; all trials") for line in lines)


@pytest.mark.parametrize("kind", ["uniform", "log_uniform"])
def test_rewinding_is_chosen_among_points(kind: str) -> None:
    """Every point that is searched is saved during the dense run."""
    (line,) = find_problems(study_with(rewinding={kind: [0.1, 1.0]}))
    assert line.startswith(f"trial.pruning.rewinding: {kind} range; ")
    assert "use choice: [0.0, 0.5, continue]" in line


@pytest.mark.parametrize(
    ("milestones", "rule"),
    [
        ([0.4, 0.2, 0.6], "must increase"),
        ([0.2, 0.2, 0.6], "must increase"),
        ([0.0, 0.6], "must increase, and lie between 0 and 1, both excluded"),
        ([0.6, 1.0], "lie between 0 and 1"),
        ([], "must increase"),
        ([0.2, float("nan"), 0.6], "must increase"),
        (0, "must be 1 to 100"),
        (101, "must be 1 to 100"),
        ([0.2, 0.4], "the last is 0.4; it must be the target sparsity 0.6"),
        ([0.6, 0.8], "the last is 0.8; it must be the target sparsity 0.6"),
        ("five", "'five' should be a valid"),
    ],
)
def test_bad_milestones(milestones: Any, rule: str) -> None:
    lines = find_problems(study_values(milestones=milestones))
    assert any(rule in line for line in lines)
    assert all(line.startswith("milestones: ") for line in lines)


@pytest.mark.parametrize("sparsity", [0, 1, 1.5, -0.5, float("nan"), "half", None, [0.5], True])
def test_target_sparsity_lies_between_nothing_and_everything(sparsity: Any) -> None:
    (line,) = find_problems(study_with(target_sparsity=sparsity))
    assert line.startswith(f"trial.pruning.target_sparsity: {sparsity!r} ")
    assert line.endswith("; correct it")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"num_trials": "many"}, "num_trials"),
        ({"num_trials": 1.5}, "num_trials"),
        ({"seed": -1}, "seed"),
        ({"stopping": 3}, "stopping"),
        ({"objective": "best"}, "objective"),
        ({"sampler": {"name": "grid"}}, "sampler.name"),
        ({"resources": {"cpus_per_stage": 0}}, "resources.cpus_per_stage"),
        ({"resources": {"gpus_per_stage": 1.5}}, "resources.gpus_per_stage"),
        ({"num_trials": True}, "num_trials"),
        ({"num_trials": "5"}, "num_trials"),
        ({"tracking": {"uri": 5}}, "tracking.uri"),
        ({"start_with": ["x"]}, "start_with.0"),
        ({"start_with": {"pruning.mixing.coefficient": 0.5}}, "start_with"),
        ({"storage": ""}, "storage"),
        ({"storage": "s3://"}, "storage"),
        ({"storage": "s3://bucket/studies?versionId=3"}, "storage"),
        ({"storage": "s3://key:secret@bucket/studies"}, "storage"),
        ({"trial": [1]}, "trial"),
        ({"trial": None}, "trial"),
        ({"name": "store"}, "name"),
        ({"name": "../elsewhere"}, "name"),
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
    ],
    ids=str,
)
def test_wrong_value_at_the_top(change: dict[str, Any], name: str) -> None:
    (line,) = find_problems(study_values(**change))
    assert line.startswith(f"{name}: ")
    assert ";" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pruning.mixing.coefficient", 1.5),
        ("pruning.mixing.coefficient", True),
        ("pruning.mixing.coefficient", "half"),
        ("pruning.schedule.levels", 2.5),
        ("pruning.schedule.levels", 7),
        ("pruning.schedule.shape", "cubic"),
    ],
)
def test_first_trials_lie_within_the_ranges(name: str, value: Any) -> None:
    (line,) = find_problems(study_values(start_with=[{name: value}]))
    assert line.startswith(f"start_with.0.{name}: {value!r} is outside ")
    assert "choose a value in the range" in line


def test_nothing_given() -> None:
    assert find_problems({}) == [
        "name: missing; give it a value",
        "trial: missing; give it a value",
    ]


@pytest.mark.parametrize("uri", ["http://me:topsecret@host:5000", "https://topsecret@host"])
def test_tracking_server_with_a_password_is_refused_and_not_told(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_study(study_values(tracking={"uri": uri}))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("tracking.uri: 'http")
    assert "***@host" in line
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in line
    assert "topsecret" not in line
