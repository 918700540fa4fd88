"""`distprune run`: one trial in this process, kept in the store of the searches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distprune import Mask
from distprune.store.store import Store
from tests.cli.conftest import RunCommand, WriteStudy
from tests.tiny_study import SHAPE

pytestmark = pytest.mark.filterwarnings("ignore")


def test_levels_are_printed_and_the_mask_is_written(
    tmp_path: Path, run_command: RunCommand, write_study: WriteStudy
) -> None:
    path = tmp_path / "mask.safetensors"
    finished = run_command("run", write_study(), "--mask", path)
    assert finished.code == 0
    header, *levels = finished.out.splitlines()
    assert "accuracy" in header
    assert [line.split()[:2] for line in levels] == [
        ["0", "0.0"],
        ["1", "20.0"],
        ["2", "40.0"],
        ["3", "60.0"],
    ]
    mask = Mask.load(path)
    assert mask.matches(SHAPE)
    assert mask.num_kept("neuron") == 16
    assert str(path) in finished.err
    check_that_nothing_is_trained_again(tmp_path, run_command, write_study)


def check_that_nothing_is_trained_again(
    folder: Path, run_command: RunCommand, write_study: WriteStudy
) -> None:
    store = Store(str(folder / "studies" / "store"))
    before = list(store.keys())
    finished = run_command("run", write_study(), "--json")
    assert list(store.keys()) == before
    levels = [json.loads(line) for line in finished.out.splitlines()]
    assert [level["level"] for level in levels] == [0, 1, 2, 3]
    assert levels[0]["retention"] == 1.0
    assert Mask.unpack(levels[3]["mask"]).num_kept("head") == 3


def test_range_that_the_first_trials_name_can_be_given_one_value(
    run_command: RunCommand, write_study: WriteStudy
) -> None:
    assignment = "trial.pruning.mixing.coefficient=0.3"
    finished = run_command("run", write_study(), "--set", assignment, "--json")
    assert finished.code == 0, finished.err
    assert len(finished.out.splitlines()) == 4


def test_interrupted_from_the_keyboard(
    run_command: RunCommand, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distprune.trial.resolve.resolve_context", interrupt)
    finished = run_command("run", write_study())
    assert finished.code == 130
    assert "Traceback" not in finished.err


def test_mask_file_that_cannot_be_written(
    tmp_path: Path, run_command: RunCommand, write_study: WriteStudy
) -> None:
    (tmp_path / "file").write_text("x")
    finished = run_command("run", write_study(), "--mask", tmp_path / "file" / "mask")
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert line.startswith("error: ")
    assert str(tmp_path / "file") in line
