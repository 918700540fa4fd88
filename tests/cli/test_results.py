"""`distprune results`: the leaderboard of a study, for people and for programs."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from distprune.cli.tables import format_leaderboard
from distprune.core.cost import Sparsities
from distprune.core.mask import Mask
from distprune.errors import MaskError
from distprune.library.history import History
from distprune.library.leaderboard import Leaderboard, LeaderboardRow
from distprune.library.mixing_paths import (
    PathPart,
    PathSummary,
    TracedLevel,
    locate_paths,
    write_paths,
)
from distprune.library.study_folder import StudyFolder
from distprune.trial.usage import StageUse
from tests.cli.conftest import RunCommand
from tests.library.records import make_start, reach
from tests.tiny_study import SHAPE
from tests.trial.results import make_results


def make_row(milestone: float, trial: int, report_metric: float | None) -> LeaderboardRow:
    return LeaderboardRow(
        milestone=milestone,
        trial=trial,
        level=2,
        search_metric=0.81,
        report_metric=report_metric,
        retention=0.7654,
        sparsities=Sparsities(heads=0.5, neurons=0.5, encoder_parameters=0.41, macs=0.43),
        parameters={"pruning.mixing.coefficient": 0.123456, "pruning.rewinding": "continue"},
    )


@pytest.fixture
def leaderboard() -> Leaderboard:
    return Leaderboard(
        study="mine",
        metric="f1",
        higher_is_better=True,
        dense={"search": 0.91, "report": 0.92},
        floor={"search": 0.5, "report": 0.52},
        outcomes={"stopped": 3, "completed": 2},
        pretrained_objective="mlm",
        rows=[make_row(0.2, 4, 0.8), make_row(0.5, 1, None)],
    )


@pytest.fixture
def folder(tmp_path: Path, leaderboard: Leaderboard) -> StudyFolder:
    """A study that has ended, as far as its leaderboard tells."""
    folder = StudyFolder(tmp_path, "mine")
    folder.root.mkdir()
    folder.configuration.write_text("name: mine\n")
    folder.leaderboard_json.write_text(leaderboard.to_json())
    return folder


def render(leaderboard: Leaderboard, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(format_leaderboard(leaderboard))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [80, 200])
def test_table_has_a_row_a_milestone_that_fits(width: int, leaderboard: Leaderboard) -> None:
    lines = [line.split() for line in render(leaderboard, width).splitlines()]
    assert ["20", "%", "0.8000", "0.8100", "0.765", "-41", "%", "-43", "%", "4", "2"] in lines
    assert ["50", "%", "-", "0.8100", "0.765", "-41", "%", "-43", "%", "1", "2"] in lines
    assert ["dense", "0.9200", "0.9100", "1.000", "-0", "%", "-0", "%", "0"] in lines
    text = " ".join(" ".join(line) for line in lines)
    assert "coefficient=0.123 rewinding=continue" in text
    assert "2 completed, 3 stopped" in text
    assert "a constant prediction scores 0.5200 on the report split" in text
    assert "higher is better" in text


def test_results_for_people(folder: StudyFolder, run_command: RunCommand) -> None:
    finished = run_command("results", folder.root)
    assert (finished.code, finished.err) == (0, "")
    assert "Best masks of mine" in finished.out


def test_results_for_programs(
    folder: StudyFolder, leaderboard: Leaderboard, run_command: RunCommand
) -> None:
    finished = run_command("results", folder.root, "--json")
    printed = json.loads(finished.out)
    stages = printed.pop("stages")
    assert printed == json.loads(leaderboard.to_json())
    assert stages["num_computed"] == 0


def test_results_say_what_the_stages_cost(folder: StudyFolder, run_command: RunCommand) -> None:
    computed = StageUse("retrain", "key", is_computed=True, seconds=100.0, num_bytes=3 << 20)
    history = History(folder.history)
    for number, use in enumerate((computed, replace(computed, is_computed=False))):
        (level,) = make_results([0.0], [0.9])
        history.append(make_start(number))
        history.append(reach(number, 1, [replace(level, uses=(use,))]))
    words = run_command("results", folder.root).out.splitlines()[-1]
    assert words == "stages: 1 computed in 1:40 (3 MiB), 1 reused (1:40 saved)"
    stages = json.loads(run_command("results", folder.root, "--json").out)["stages"]
    assert (stages["num_computed"], stages["num_reused"]) == (1, 1)
    assert (stages["seconds_saved"], stages["bytes_written"]) == (100.0, 3 << 20)


PARTS = {
    "head": PathPart(28, 27, (0.1, 0.2)),
    "neuron": PathPart(3093, 3092, (0.15, 0.16)),
    "whole": PathPart(3120, 3119, (0.15, 0.16)),
}
TRACED = PathSummary((0.3, 0.4, 0.5), 4, 2, 0.5, 0.156, PARTS, None)
SINGLE = PathSummary((0.2,), 1, 1, 0.2, 0.0, None, "only one was measured")


def test_results_say_what_lambda_could_have_chosen(
    folder: StudyFolder, leaderboard: Leaderboard, run_command: RunCommand
) -> None:
    assert "λ" not in run_command("results", folder.root).out
    write_paths(folder, [TracedLevel(SINGLE, None), TracedLevel(TRACED, None)])
    words = " ".join(run_command("results", folder.root).out.split())
    assert (
        "What λ decides at a level, with the levels before it as they were: "
        "20 % (trial 1, level 1): no mixing path: only one was measured "
        "30, 40 and 50 % (trial 4, level 2): λ over [0, 1] could have kept 28 different sets of "
        "heads and 3,120 different whole masks stages:"
    ) in words
    finished = run_command("results", folder.root, "--json")
    assert "3120" not in finished.out


def test_damaged_mixing_paths(folder: StudyFolder, run_command: RunCommand) -> None:
    locate_paths(folder).parent.mkdir()
    locate_paths(folder).write_text("{")
    finished = run_command("results", folder.root)
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert str(locate_paths(folder)) in line
    assert "run `distprune search` again" in line


def test_folder_without_a_study(tmp_path: Path, run_command: RunCommand) -> None:
    for verb in ("results", "ui"):
        finished = run_command(verb, tmp_path / "elsewhere")
        assert finished.code == 2
        (line,) = finished.err.splitlines()
        assert line.startswith("error: study: ")
        assert "elsewhere" in line
        assert "name a folder that `distprune search` made" in line


def test_study_that_has_not_ended(folder: StudyFolder, run_command: RunCommand) -> None:
    folder.leaderboard_json.unlink()
    finished = run_command("results", folder.root)
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert str(folder.root) in line
    assert "has no leaderboard" in line
    assert "run it again to go on" in line


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": "distprune.leaderboard/2"}'])
def test_damaged_leaderboard(text: str, folder: StudyFolder, run_command: RunCommand) -> None:
    folder.leaderboard_json.write_text(text)
    finished = run_command("results", folder.root)
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert str(folder.leaderboard_json) in line
    assert "run `distprune search` again" in line


def test_runs_on_a_tracking_server_are_opened_there(
    folder: StudyFolder, run_command: RunCommand
) -> None:
    folder.configuration.write_text("tracking: {uri: 'http://tracking:5000'}\n")
    finished = run_command("ui", folder.root)
    assert finished.code == 2
    assert "http://tracking:5000; open it there" in finished.err


def test_pages_of_a_study_without_runs(folder: StudyFolder, run_command: RunCommand) -> None:
    folder.configuration.write_text("tracking: {uri: null}\n")
    finished = run_command("ui", folder.root, "--port", 5999)
    assert finished.code == 2
    assert "does not exist; run `distprune search` first" in finished.err


class TestMaskFile:
    """What a user meets who loads a file of the library."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "mask.safetensors"
        Mask.dense(SHAPE).save(path)
        return path

    @pytest.mark.parametrize("num_bytes", [0, 4, 40, -1])
    def test_truncated(self, num_bytes: int, path: Path) -> None:
        path.write_bytes(path.read_bytes()[:num_bytes])
        with pytest.raises(MaskError, match=f"mask file {path}: .*; write it again") as caught:
            Mask.load(path)
        assert "\n" not in str(caught.value)

    def test_other_schema(self, path: Path) -> None:
        data = path.read_bytes().replace(b"distprune.mask/1", b"distprune.mask/9")
        path.write_bytes(data)
        with pytest.raises(MaskError, match=r"schema distprune\.mask/9; this version reads"):
            Mask.load(path)

    def test_other_model(self, path: Path) -> None:
        from tests.model_families import build_classifier

        with pytest.raises(MaskError, match=r"mask: .*model"):
            Mask.load(path).compact(build_classifier("bert"))

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MaskError, match="name a file that exists"):
            Mask.load(tmp_path / "nowhere")
