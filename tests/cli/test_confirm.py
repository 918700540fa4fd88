"""`distprune confirm` from the shell to the files; what it refuses, in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distprune.cli.confirm import parse_controls
from distprune.core.mask import Mask
from distprune.errors import ConfigError
from distprune.library.control_trials import Control
from distprune.library.study_folder import StudyFolder
from tests.cli.conftest import RunCommand
from tests.cli.ended_study import query, read_leaderboard, read_records
from tests.cli.refusal import check_refusal
from tests.cli.sessions import finish, start_search
from tests.search.test_confirm import make_board
from tests.tiny_study import SHAPE

ARMS = ["best", "dense", "random", "inverted", "lambda_0", "lambda_1", "magnitude"]


@pytest.mark.parametrize(
    ("names", "controls"),
    [
        (None, tuple(Control)),
        ([], tuple(Control)),
        (["random"], (Control.RANDOM,)),
        (["magnitude,random", "lambda_0"], (Control.RANDOM, Control.LAMBDA_0, Control.MAGNITUDE)),
        (["inverted, lambda_1"], (Control.INVERTED, Control.LAMBDA_1)),
    ],
)
def test_controls(names: list[str] | None, controls: tuple[Control, ...]) -> None:
    assert parse_controls(names) == controls


@pytest.mark.parametrize("name", ["lambda", "", "best"])
def test_unknown_control(name: str) -> None:
    with pytest.raises(ConfigError, match="is unknown; choose of random, inverted, lambda_0"):
        parse_controls([name])


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study that has ended, as far as its leaderboard tells."""
    folder = StudyFolder(tmp_path, "mine")
    folder.root.mkdir()
    folder.configuration.write_text("name: mine\n")
    folder.leaderboard_json.write_text(make_board((0.25, 0, 1), (0.5, 1, 2)).to_json())
    return folder


class TestRefusal:
    """Bad input is one line, and nothing is started or written."""

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--seeds", "1"], ("seeds: 1", "two at least")),
            (["--controls", "lambda_2"], ("--controls: 'lambda_2' is unknown", "choose of random")),
            (["--milestone", "0.4"], ("milestone: 0.4", "at 0.25, 0.5")),
            (["--milestone", "0.5", "--milestone", "50"], ("milestone: 50", "at 0.25, 0.5")),
        ],
    )
    def test_options(
        self,
        options: list[str],
        words: tuple[str, ...],
        folder: StudyFolder,
        run_command: RunCommand,
    ) -> None:
        before = sorted(folder.storage.rglob("*"))
        check_refusal(run_command("confirm", folder.root, *options), 2, *words)
        assert sorted(folder.storage.rglob("*")) == before

    def test_no_study(self, tmp_path: Path, run_command: RunCommand) -> None:
        check_refusal(run_command("confirm", tmp_path / "elsewhere"), 2, "holds no study")

    def test_no_leaderboard(self, folder: StudyFolder, run_command: RunCommand) -> None:
        folder.leaderboard_json.unlink()
        check_refusal(run_command("confirm", folder.root), 2, "has no leaderboard")

    def test_history_without_the_level(self, folder: StudyFolder, run_command: RunCommand) -> None:
        check_refusal(
            run_command("confirm", folder.root), 2, "its history lacks level 1 of trial 0"
        )


def test_help_states_the_protocol(run_command: RunCommand) -> None:
    words = " ".join(run_command("confirm", "--help").out.split())
    for part in (
        "trained once, by its trial's own recipe and from its rewinding point",
        "seeds that the study has not used",
        "on the report split",
        "The looks share an error of 5 %",
        "goes on where it was",
        "distprune confirm studies/quickstart",
    ):
        assert part in words


@dataclass(frozen=True)
class Confirmed:
    """A tiny study that was confirmed.

    Attributes:
        folder: The study.
        printed: What `confirm --json` printed.
        err: Its progress.
    """

    folder: StudyFolder
    printed: dict[str, Any]
    err: str


def call_confirm(folder: StudyFolder, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distprune", "confirm", str(folder.root), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=400, check=False, env=environment
    )


@pytest.fixture(scope="session")
def confirmed(make_search: Callable[[str], Path]) -> Confirmed:
    """A search of three trials, and its confirmation with three seeds."""
    with start_search(make_search("confirmed"), "--num-trials", "3") as session:
        ended = finish(session)
    assert ended.code == 0, ended.err
    done = call_confirm(ended.folder, "--seeds", "3", "--json")
    assert done.returncode == 0, done.stderr
    return Confirmed(ended.folder, json.loads(done.stdout), done.stderr)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(600)
class TestConfirmedStudy:
    """One confirmation, looked at from several sides."""

    def test_every_best_mask_is_confirmed(self, confirmed: Confirmed) -> None:
        board, masks = read_leaderboard(confirmed.folder), confirmed.printed["masks"]
        milestones = [milestone for mask in masks for milestone in mask["milestones"]]
        assert sorted(milestones) == [row["milestone"] for row in board["rows"]]
        for mask in masks:
            assert [arm["name"] for arm in mask["arms"]] == ARMS
            assert mask["seeds"] == [1, 2, 3]
            rows = [row for row in board["rows"] if row["milestone"] in mask["milestones"]]
            assert {row["search_metric"] for row in rows} == {mask["search_metric"]}
            assert {row["report_metric"] for row in rows} == {mask["report_metric"]}

    def test_controls_have_the_size_of_the_best(self, confirmed: Confirmed) -> None:
        records = read_records(confirmed.folder)
        for mask in confirmed.printed["masks"]:
            best = records[mask["trial"]].levels[mask["level"]].mask
            size = best.num_kept("head"), best.num_kept("neuron")
            for arm in mask["arms"]:
                kept = arm["heads"], arm["neurons"]
                if arm["name"] == "dense":
                    dense = Mask.dense(SHAPE)
                    assert kept == (dense.num_kept("head"), dense.num_kept("neuron"))
                elif arm["metrics"]:
                    assert kept == size
                else:
                    assert arm["note"]

    def test_each_arm_has_a_number_a_seed_and_a_statement(self, confirmed: Confirmed) -> None:
        for mask in confirmed.printed["masks"]:
            trained = [arm for arm in mask["arms"] if arm["metrics"]]
            assert {"best", "dense", "random"} <= {arm["name"] for arm in trained}
            for arm in trained:
                assert len(arm["metrics"]) == 3
                assert all(0 <= metric <= 1 for metric in arm["metrics"])
                if arm["name"] != "best":
                    assert arm["difference"]["low"] <= arm["difference"]["high"]
                    assert arm["difference"]["confidence"] == 0.95
                    assert arm["statement"]

    def test_files(self, confirmed: Confirmed) -> None:
        folder = confirmed.folder
        assert json.loads((folder.root / "confirmation.json").read_text()) == confirmed.printed
        names = {path.name for path in folder.report.iterdir()}
        assert {"confirmation.png", "stability.png", "stability.json", "forgetting.png"} <= names
        values = json.loads((folder.report / "forgetting.json").read_text())
        (domain,) = values["domains"]
        assert (domain["domain"], domain["seeds"]) == ("words", [1, 2, 3])

    def test_it_is_in_the_tracked_run(self, confirmed: Confirmed) -> None:
        tracked = dict(
            query(
                confirmed.folder,
                "SELECT metrics.key, metrics.value FROM metrics JOIN tags ON tags.run_uuid = "
                "metrics.run_uuid AND tags.key = 'distprune.kind' AND tags.value = 'study' "
                "WHERE metrics.key LIKE 'confirm/%'",
            )
        )
        mask = confirmed.printed["masks"][-1]
        means = {arm["name"]: arm["mean"] for arm in mask["arms"] if arm["metrics"]}
        for name, mean in means.items():
            assert tracked[f"confirm/{mask['milestones'][-1]:g}/{name}/mean"] == mean
        artifacts = {path.name for path in confirmed.folder.tracking_artifacts.rglob("*")}
        assert {"confirmation.json", "confirmation.png", "stability.png"} <= artifacts

    def test_progress_is_on_the_error_stream(self, confirmed: Confirmed) -> None:
        assert "] seed 1, best at" in confirmed.err
        assert " of at most " in confirmed.err
        assert " left" in confirmed.err
        assert "warning" not in confirmed.err

    def test_again_it_trains_nothing_and_says_the_same(self, confirmed: Confirmed) -> None:
        store = confirmed.folder.store
        before = sorted(path.name for path in store.rglob("manifest.json"))
        assert before
        done = call_confirm(confirmed.folder, "--seeds", "3")
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in store.rglob("manifest.json")) == before
        assert json.loads((confirmed.folder.root / "confirmation.json").read_text()) == (
            confirmed.printed
        )
        assert "not distinguishable" in done.stdout or "better" in done.stdout
        assert "The study's own run:" in done.stdout
        assert "warning" not in done.stdout

    def test_changed_data_are_refused(self, confirmed: Confirmed, tmp_path: Path) -> None:
        copy = StudyFolder(tmp_path, confirmed.folder.name)
        shutil.copytree(
            confirmed.folder.root, copy.root, ignore=shutil.ignore_patterns("ray", "mlflow*")
        )
        environment = json.loads(copy.environment.read_text())
        environment["inputs"]["data"] = "f" * 64
        copy.environment.write_text(json.dumps(environment))
        done = call_confirm(copy)
        assert done.returncode == 2
        line = done.stderr.splitlines()[-1]
        assert line.startswith("error: ")
        assert "data changed since it began" in line
