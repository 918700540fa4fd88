"""Bad settings: exit code 2 and one line a problem; a useless model is another matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distprune.library.study_folder import StudyFolder
from distprune.search.study_file import load_study
from distprune.search.study_state import open_study
from tests.cli.conftest import RunCommand, WriteStudy
from tests.cli.refusal import STARTING, check_nothing_done, check_refusal, list_stages


@pytest.mark.parametrize("verb", [*STARTING, "validate"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty", "see search_spaces/quickstart.yaml"]),
        ("a: [1", ["not YAML in line", "correct it"]),
        ("- 1", ["holds a list", "it takes `name: value`"]),
    ],
    ids=["empty", "not YAML", "list"],
)
def test_file_that_is_no_study(
    verb: str, text: str, words: list[str], tmp_path: Path, run_command: RunCommand
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    check_refusal(run_command(verb, path), 2, str(path), *words)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("verb", [*STARTING, "validate"])
def test_file_that_does_not_exist(verb: str, tmp_path: Path, run_command: RunCommand) -> None:
    path = tmp_path / "missing.yaml"
    check_refusal(run_command(verb, path), 2, str(path), "No such file", "correct the path")


@pytest.mark.parametrize("verb", [*STARTING, "validate"])
def test_all_problems_of_a_file_one_line_each(
    verb: str, tmp_path: Path, run_command: RunCommand, write_study: WriteStudy
) -> None:
    changes = {
        "num_trials": "many",
        "sead": 3,
        "milestones": [0.4, 0.2, 0.6],
        "trial.pruning.target_sparsity": 1.5,
        "trial.pruning.mixing.coefficient": {"uniform": [0.5, 1.5]},
        "trial.pruning.importance.exmples": 3,
        "trial.task.metric": "bleu",
    }
    finished = run_command(verb, write_study(changes))
    check_refusal(finished, 2, "num_trials: 'many' must be a number")
    check_refusal(finished, 2, "sead: unknown name; did you mean 'seed'?")
    check_refusal(finished, 2, "milestones: [0.4, 0.2, 0.6] must increase")
    check_refusal(finished, 2, "trial.pruning.target_sparsity: 1.5 should be less than 1")
    check_refusal(finished, 2, "trial.pruning.mixing.coefficient: 1.5 should be less than or equal")
    check_refusal(finished, 2, "exmples: unknown name; did you mean 'examples'?")
    check_refusal(finished, 2, "trial.task.metric: 'bleu' should be", "'accuracy', 'f1'")
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("verb", [*STARTING, "validate"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"trial.pruning.mixing.coefficient": {"uniform": [1.0, 0.0]}},
            ["trial.pruning.mixing.coefficient", "[1.0, 0.0]", "upside down", "lower end first"],
        ),
        (
            {"trial.pruning.mixing.coefficient": -0.5, "start_with": []},
            ["trial.pruning.mixing.coefficient", "-0.5", "greater than or equal to 0"],
        ),
        ({"trial.pruning.target_sparsity": 0}, ["target_sparsity", "0 ", "greater than 0"]),
        ({"trial.pruning.target_sparsity": 1}, ["target_sparsity", "1 ", "less than 1"]),
        (
            {"milestones": [0.2, 0.5]},
            ["milestones", "0.5", "0.6", "must be the target", "change one"],
        ),
        (
            {"resources.cpus_per_stage": "all"},
            ["resources.cpus_per_stage", "'all'", "must be a number"],
        ),
    ],
    ids=["upside down", "coefficient", "sparsity 0", "sparsity 1", "milestones", "type"],
)
def test_value_against_a_rule(
    verb: str,
    changes: dict[str, Any],
    words: list[str],
    tmp_path: Path,
    run_command: RunCommand,
    write_study: WriteStudy,
) -> None:
    check_refusal(run_command(verb, write_study(changes)), 2, *words)
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("verb", STARTING)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"trial.pruning.schedule.levels": 40},
            ["pruning.schedule.levels: 40", "each level removes", "use fewer levels"],
        ),
        (
            {"trial.pruning.selection.min_heads_per_layer": 3},
            ["min_heads_per_layer", "3", "cannot be kept at sparsity 0.6", "lower one"],
        ),
    ],
    ids=["levels", "floor"],
)
def test_more_than_the_model_has(
    verb: str,
    changes: dict[str, Any],
    words: list[str],
    tmp_path: Path,
    run_command: RunCommand,
    write_study: WriteStudy,
) -> None:
    check_refusal(run_command(verb, write_study(changes)), 2, *words)
    check_nothing_done(tmp_path)


def test_more_levels_than_the_model_has_in_some_trial_only(
    tmp_path: Path, run_command: RunCommand, write_study: WriteStudy
) -> None:
    """Forty levels of a one-shot schedule are one; of a linear one they are too many."""
    changes = {
        "trial.pruning.schedule.shape": {"choice": ["one_shot", "linear"]},
        "trial.pruning.schedule.levels": {"int": [2, 40]},
    }
    finished = run_command("search", write_study(changes))
    check_refusal(finished, 2, "pruning.schedule.levels: 40", "use fewer levels")
    check_nothing_done(tmp_path)


@pytest.mark.parametrize("verb", STARTING)
def test_storage_below_a_file(
    verb: str, tmp_path: Path, run_command: RunCommand, write_study: WriteStudy
) -> None:
    (tmp_path / "file").write_text("x")
    storage = tmp_path / "file" / "studies"
    finished = run_command(verb, write_study(), "--storage", storage)
    check_refusal(finished, 2, "storage", str(tmp_path / "file"))


def test_existing_study_with_other_settings(
    tmp_path: Path, run_command: RunCommand, write_study: WriteStudy
) -> None:
    study = load_study(write_study())
    folder = StudyFolder(tmp_path / "studies", "tiny")
    open_study(study, folder, fresh=False)
    folder.history.write_text("")
    finished = run_command("search", write_study(), "--set", "seed=7")
    check_refusal(finished, 2, "study 'tiny'", str(folder.root), "seed: 0 is now 7", "--fresh")
    check_nothing_done_but_history(tmp_path)


def check_nothing_done_but_history(folder: Path) -> None:
    (folder / "studies" / "tiny" / "history.jsonl").unlink()
    check_nothing_done(folder)


@pytest.mark.parametrize("flag", [["--set", "seed"], ["--set", "=3"], ["--set", "seed=[1"]])
def test_bad_assignment(
    flag: list[str], tmp_path: Path, run_command: RunCommand, write_study: WriteStudy
) -> None:
    check_refusal(run_command("search", write_study(), *flag), 2, "--set")
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serch"],
        ["search"],
        ["search", "x.yaml", "--num-trials", "0"],
        ["ui", "x", "--port", "0"],
    ],
    ids=" ".join,
)
def test_bad_usage_says_how_to_use_it(arguments: list[str], run_command: RunCommand) -> None:
    finished = run_command(*arguments)
    assert finished.code == 2
    assert "Usage: " in finished.out + finished.err
    assert "Traceback" not in finished.err


def test_useless_dense_model_is_no_bad_input(
    tmp_path: Path, run_command: RunCommand, write_study: WriteStudy
) -> None:
    """The study failed: nothing is wrong with its file, and nothing is pruned."""
    changes = {"trial.fine_tuning.learning_rate": 1e-9, "trial.fine_tuning.steps": 1}
    finished = run_command("run", write_study(changes))
    check_refusal(finished, 1, "dense model: accuracy", "no better than a constant", "epochs")
    stages = list_stages(tmp_path / "studies" / "store")
    assert "dense" in stages
    assert not stages & {"probe", "score", "retrain"}
