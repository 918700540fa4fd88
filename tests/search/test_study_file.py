"""Study files: how they are read, and what a good one means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from distprune.errors import ConfigError
from distprune.search.study_file import Study, load_study
from distprune.trial.reporter import Objective
from tests.search.synthetic import make_study, study_values, trial_values

SEARCH_SPACES = Path(__file__).parents[2] / "search_spaces"


def test_nothing_can_be_said_of_what_is_left_to_the_cluster() -> None:
    nothing = {"gpus_per_stage": None, "shared_cpus": None, "max_concurrent": None}
    assert make_study(resources=nothing).spec.resources == make_study().spec.resources


def test_milestones_are_equal_steps_to_the_target() -> None:
    assert make_study(milestones=3).milestones == pytest.approx((0.2, 0.4, 0.6))
    assert make_study(milestones=1).milestones == (0.6,)


def test_retraining_inherits_from_fine_tuning() -> None:
    trial = trial_values() | {
        "fine_tuning": {"epochs": 7, "batch_size": 8, "freeze": ["embeddings"]},
        "retraining": {"epochs": 1, "learning_rate": {"log_uniform": [1e-5, 1e-3]}},
    }
    study = make_study(trial=trial)
    retraining = study.make_trial({"retraining.learning_rate": 1e-4}).retraining
    assert (retraining.epochs, retraining.batch_size, retraining.freeze) == (1, 8, ("embeddings",))
    assert retraining.learning_rate == 1e-4
    assert study.base.fine_tuning.epochs == 7
    assert study.base.retraining.learning_rate == 1e-5


def test_base_takes_the_first_value_of_each_range() -> None:
    study = make_study()
    assert study.base.pruning.mixing.coefficient == 0.0
    assert study.base.pruning.schedule.levels == 2
    assert study.spec.objective is Objective.CURVE


@pytest.mark.parametrize(
    ("rewinding", "points"),
    [
        ({"choice": [0.5, "continue", 0.0]}, (0.0, 0.5)),
        ({"choice": ["continue"]}, ()),
        (0.25, (0.25,)),
        ("continue", ()),
    ],
)
def test_rewinding_points_are_all_that_a_trial_can_ask_for(
    rewinding: Any, points: tuple[float, ...]
) -> None:
    assert make_study(trial=trial_values(rewinding=rewinding)).rewinding_points == points


def test_pairs_of_probes_reach_every_two_ends() -> None:
    """One level in a shape and many in another: together they are more than there are units."""
    study = make_study()
    pairs = list(study.pairs_of_probes())
    wanted = {"pruning.schedule.shape": "one_shot", "pruning.schedule.levels": 3}
    assert any(wanted.items() <= pair.items() for pair in pairs)
    assert all(set(pair) == {p.name for p in study.parameters} for pair in pairs)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "empty; see search_spaces/quickstart.yaml"),
        ("# only a comment\n", "empty"),
        ("name: [1, 2\ntrial: 3", "not YAML in line"),
        ("a: b: c", "not YAML in line 1"),
        ("- 1\n- 2\n", "holds a list; it takes `name: value`"),
        ("just words", "holds a str"),
        (b"\xff\xfe\x00\xd8", "cannot be read (it is not text)"),
    ],
    ids=["empty", "comment", "open bracket", "two colons", "list", "words", "bytes"],
)
def test_file_that_is_no_study(text: str | bytes, rule: str, tmp_path: Path) -> None:
    path = write(tmp_path / "study.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"file {path}: ")
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.yaml", ".", "study.yaml/below"])
def test_file_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    write(tmp_path / "study.yaml", "name: x")
    with pytest.raises(ConfigError, match=r"cannot be read \(.*\); correct the path"):
        load_study(tmp_path / name)


def test_overrides_replace_values_and_ranges(tmp_path: Path) -> None:
    path = write(tmp_path / "study.yaml", yaml.safe_dump(study_values(), sort_keys=False))
    overrides = {
        "num_trials": 9,
        "trial.pruning.mixing.coefficient": 0.3,
        "trial.pruning.schedule.levels": {"int": [2, 5]},
        "stopping": None,
    }
    study = load_study(path, overrides)
    assert study.spec.num_trials == 9
    assert study.spec.stopping is None
    assert study.base.pruning.mixing.coefficient == 0.3
    assert [(p.name, p.values) for p in study.parameters] == [
        ("pruning.schedule.shape", ("linear", "one_shot")),
        ("pruning.schedule.levels", (2, 5)),
    ]


def test_override_with_one_value_leaves_the_first_trials(tmp_path: Path) -> None:
    """They may name a setting that is searched no more; what else they say is kept."""
    name = "pruning.mixing.coefficient"
    start = [{name: 0.0}, {}, {name: 1.0, "pruning.schedule.levels": 3}]
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study_values(start_with=start)))
    assert list(load_study(path).spec.start_with) == start
    fixed = load_study(path, {f"trial.{name}": 0.3})
    assert list(fixed.spec.start_with) == [{}, {"pruning.schedule.levels": 3}]
    narrowed = load_study(path, {f"trial.{name}": {"uniform": [0.0, 2.0 / 2]}})
    assert list(narrowed.spec.start_with) == start


def test_override_with_an_unknown_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "study.yaml", yaml.safe_dump(study_values(), sort_keys=False))
    with pytest.raises(ConfigError, match="did you mean 'num_trials'"):
        load_study(path, {"num_trial": 9})


@pytest.mark.parametrize("path", sorted(SEARCH_SPACES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_search_spaces_that_come_along_are_valid(path: Path) -> None:
    study: Study = load_study(path)
    assert study.parameters
    assert study.milestones[-1] == study.base.pruning.target_sparsity
