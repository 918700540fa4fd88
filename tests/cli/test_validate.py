"""`distprune validate`: says what a study would do, and starts nothing."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import RunCommand, WriteStudy


def test_good_file_is_described(
    tmp_path: Path, run_command: RunCommand, write_study: WriteStudy
) -> None:
    path = write_study()
    finished = run_command("validate", path)
    assert (finished.code, finished.err) == (0, "")
    assert f"{path}: valid" in finished.out
    assert "tiny, 4 trials" in finished.out
    assert "0.2, 0.4, 0.6" in finished.out
    assert "pruning.mixing.coefficient: uniform [0.0, 1.0]" in finished.out
    assert not (tmp_path / "studies").exists()


def test_json_has_every_setting(run_command: RunCommand, write_study: WriteStudy) -> None:
    finished = run_command("validate", write_study(), "--json", "--set", "num_trials=9")
    settings = json.loads(finished.out)
    assert settings["num_trials"] == 9
    assert settings["milestones"] == [0.2, 0.4, 0.6]
    assert settings["stopping"] == {"reduction_factor": 2, "grace_milestones": 1}


def test_checkpoint_and_data_are_not_looked_at(
    run_command: RunCommand, write_study: WriteStudy
) -> None:
    changes = {"trial.checkpoint": "/nowhere", "trial.task.dataset": "/nowhere.csv"}
    assert run_command("validate", write_study(changes)).code == 0
