"""A study on disk: found again, set aside on request, never mixed with other settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from distprune.errors import StorageError, StudyExistsError
from distprune.library.study_folder import StudyFolder
from distprune.search.study_state import (
    DECIDING_SETTINGS,
    FREE_SETTINGS,
    describe_continuation,
    open_study,
)
from tests.search.synthetic import make_study, open_ledger, trial_values


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """The folder of a study that has begun its first trial."""
    folder = StudyFolder(tmp_path, "synthetic")
    open_study(make_study(), folder, fresh=False)
    open_ledger(make_study(), folder).assign()
    return folder


def read_files(folder: StudyFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.root.iterdir() if path.is_file()}


def test_same_file_goes_on(folder: StudyFolder) -> None:
    before = read_files(folder)
    first = json.loads(before["environment.json"])["study_id"]
    assert open_study(make_study(), folder, fresh=False) == first
    assert read_files(folder) == before


def test_study_is_written_as_resolved(folder: StudyFolder) -> None:
    stored = yaml.safe_load(folder.configuration.read_text())
    assert stored["sampler"]["startup_trials"] == 2
    assert stored["stopping"] == {"reduction_factor": 2, "grace_milestones": 1}
    assert stored["trial"]["pruning"]["mixing"]["coefficient"] == {"uniform": [0.0, 1.0]}
    assert stored["trial"]["fine_tuning"]["schedule"] == "linear"
    environment = json.loads(folder.environment.read_text())
    assert {"study_id", "python", "packages", "cpus"} <= set(environment)
    assert environment["packages"]["optuna"]


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"seed": 4}, "(seed: 3 is now 4)"),
        ({"objective": "target"}, "objective: curve is now target"),
        ({"milestones": [0.3, 0.6]}, "milestones: [0.2, 0.4, 0.6] is now [0.3, 0.6]"),
        ({"stopping": None}, "'grace_milestones': 1} is now None"),
        ({"sampler": {"name": "random", "startup_trials": 2}}, "sampler.name: tpe is now random"),
        ({"start_with": [{}]}, "start_with: [] is now [{}]"),
        (
            {"trial": trial_values(mixing={"coefficient": 0.5})},
            "trial.pruning.mixing.coefficient: {'uniform': [0.0, 1.0]} is now 0.5",
        ),
        (
            {"trial": trial_values() | {"precision": "float32"}},
            "trial.precision: auto is now float32",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_changed_setting_is_refused_by_name(
    change: dict[str, Any], shown: str, folder: StudyFolder
) -> None:
    before = read_files(folder)
    with pytest.raises(StudyExistsError) as caught:
        open_study(make_study(**change), folder, fresh=False)
    message = str(caught.value)
    assert message.startswith(f"study 'synthetic': exists in {folder.root} with other settings (")
    assert shown in message
    assert "--fresh" in message
    assert "\n" not in message
    assert read_files(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        {"num_trials": 50},
        {"resources": {"max_concurrent": 1, "shared_cpus": 2}},
        {"tracking": {"uri": "http://127.0.0.1:5000"}},
        {"storage": "moved"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_free_setting_can_change(change: dict[str, Any], folder: StudyFolder) -> None:
    first = json.loads(folder.environment.read_text())["study_id"]
    assert open_study(make_study(**change), folder, fresh=False) == first
    stored = yaml.safe_load(folder.configuration.read_text())
    assert all(stored[name] != make_study().spec.model_dump()[name] for name in change)


def test_fresh_sets_the_old_study_aside(folder: StudyFolder) -> None:
    before = read_files(folder)
    first = json.loads(before["environment.json"])["study_id"]
    assert open_study(make_study(seed=4), folder, fresh=True) != first
    assert not folder.history.exists()
    (aside,) = folder.storage.glob("synthetic.before-*")
    assert read_files(StudyFolder(folder.storage, aside.name)) == before


def test_fresh_without_an_old_study(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "synthetic")
    open_study(make_study(), folder, fresh=True)
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic"]


def test_study_without_a_trial_may_change(tmp_path: Path) -> None:
    """A wrong checkpoint is found after the study is made; correcting it takes no --fresh."""
    folder = StudyFolder(tmp_path, "synthetic")
    open_study(make_study(trial=trial_values() | {"checkpoint": "wrong"}), folder, fresh=False)
    open_study(make_study(), folder, fresh=False)
    assert yaml.safe_load(folder.configuration.read_text())["trial"]["checkpoint"] == "nowhere"


@pytest.mark.parametrize("text", ["", "- 1", "a: b: c", "words"])
def test_damaged_configuration(text: str, folder: StudyFolder) -> None:
    folder.configuration.write_text(text)
    with pytest.raises(StorageError, match=r"its study\.yaml cannot be read .*--fresh") as caught:
        open_study(make_study(), folder, fresh=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_damaged_environment(text: str, folder: StudyFolder) -> None:
    folder.environment.write_text(text)
    with pytest.raises(StorageError, match=r"its environment\.json cannot be read .*--fresh"):
        open_study(make_study(), folder, fresh=False)


def test_storage_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        open_study(make_study(), StudyFolder(tmp_path / "file", "synthetic"), fresh=False)


@pytest.mark.parametrize(
    ("change", "meaning"),
    [
        ({"seed": 4}, "its trials were proposed by one sampler"),
        ({"milestones": [0.3, 0.6]}, "its trials are compared at the same sparsities"),
        ({"stopping": None}, "its trials were stopped by one rule"),
        ({"trial": trial_values() | {"seed": 1}}, "its trials are compared with one dense model"),
        (
            {"trial": trial_values(mixing={"coefficient": {"uniform": [0.0, 0.5]}})},
            "its trials were drawn from one search space",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusal_says_what_the_change_means(
    change: dict[str, Any], meaning: str, folder: StudyFolder
) -> None:
    with pytest.raises(StudyExistsError) as caught:
        open_study(make_study(**change), folder, fresh=False)
    assert f"), and {meaning}; undo the change" in str(caught.value)


def test_each_reason_is_said_once(folder: StudyFolder) -> None:
    with pytest.raises(StudyExistsError) as caught:
        open_study(make_study(seed=4, start_with=[{}]), folder, fresh=False)
    assert str(caught.value).count("proposed by one sampler") == 1


def test_every_setting_of_a_study_is_free_or_says_why_it_is_not() -> None:
    free, deciding = set(FREE_SETTINGS), {name.split(".")[0] for name in DECIDING_SETTINGS}
    assert not free & deciding
    assert free | deciding | {"name"} == set(make_study().spec.model_dump())


def test_free_changes_are_told_with_what_they_mean(folder: StudyFolder) -> None:
    study = make_study(num_trials=50, resources={"max_concurrent": 1})
    assert describe_continuation(study, folder) == (
        "num_trials: 6 is now 50; it decides how many trials there are in all",
        "resources.max_concurrent: None is now 1; it decides what the study may use, not what it "
        "finds",
    )
    open_study(study, folder, fresh=False)
    assert describe_continuation(study, folder) == ()


def test_setting_that_an_older_version_did_not_have_has_not_changed(folder: StudyFolder) -> None:
    stored = yaml.safe_load(folder.configuration.read_text())
    del stored["resources"]["autoscale_cpus"]
    folder.configuration.write_text(yaml.safe_dump(stored))
    assert describe_continuation(make_study(), folder) == ()


def test_study_that_has_not_begun_has_not_changed(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "synthetic")
    assert describe_continuation(make_study(), folder) == ()
    open_study(make_study(num_trials=3), folder, fresh=False)
    assert describe_continuation(make_study(), folder) == ()
