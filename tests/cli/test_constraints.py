"""`distprune results STUDY --max-latency-ms 4`: what a study answers afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from distprune.cli.constraint_question import Question
from distprune.cli.constraints import answer_question
from distprune.core.cost import Sparsities
from distprune.core.latency_table import Architecture, PredictionError, write_table
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.deployment.machine import describe_machine
from distprune.errors import ConfigError, StorageError
from distprune.library.history import History
from distprune.library.leaderboard import Leaderboard, LeaderboardRow
from distprune.library.study_folder import StudyFolder
from tests.core.latencies import CONDITIONS, SHAPE, make_latencies, make_table
from tests.library.records import make_start, reach
from tests.report.pictures import read_size
from tests.trial.results import make_result

CHECKPOINT = {"name": "tiny", "fingerprint": "c" * 64, "model_type": "bert"}
LEVELS = ((0.0, 0.90, 4, 20), (0.5, 0.88, 2, 10), (0.75, 0.80, 1, 5))
"""Sparsity, metric, heads and neurons kept a layer; they take 19, 13 and 10 ms."""

Ask = Callable[..., str]


def keep(num_heads: int, num_neurons: int) -> Mask:
    return Mask(
        {
            UnitKind.HEAD: np.tile(np.arange(4) < num_heads, (2, 1)),
            UnitKind.NEURON: np.tile(np.arange(20) < num_neurons, (2, 1)),
        }
    )


@pytest.fixture
def leaderboard() -> Leaderboard:
    row = LeaderboardRow(0.5, 0, 1, 0.88, 0.87, 0.95, Sparsities(0.5, 0.5, 0.48, 0.5), {})
    return Leaderboard(
        study="mine",
        metric="accuracy",
        higher_is_better=True,
        dense={"search": 0.9, "report": 0.9},
        floor={"search": 0.5, "report": 0.5},
        outcomes={"completed": 1},
        pretrained_objective=None,
        rows=[row],
    )


@pytest.fixture
def folder(tmp_path: Path, leaderboard: Leaderboard) -> StudyFolder:
    """A study of one trial with three levels."""
    folder = StudyFolder(tmp_path, "mine")
    folder.root.mkdir()
    folder.configuration.write_text("name: mine\n")
    folder.leaderboard_json.write_text(leaderboard.to_json())
    metadata = {"checkpoint": CHECKPOINT, "shape": asdict(SHAPE)}
    keep(2, 10).with_metadata(metadata).save(folder.mask(0.5))
    history = History(folder.history)
    history.append(make_start(0))
    for level, (sparsity, metric, heads, neurons) in enumerate(LEVELS):
        mask = keep(heads, neurons).pack()
        result = make_result(level, sparsity, metric, packed_mask=mask)
        history.append(reach(0, level + 1, [result]))
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A latency table of the study's architecture, measured on this machine."""
    path = tmp_path / "latency.json"
    checked = make_latencies(error=PredictionError(0.021, 0.054, 8))
    write_table(make_table(checked, machine=describe_machine()), path)
    return path


@pytest.fixture
def ask(folder: StudyFolder, leaderboard: Leaderboard, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Ask the study, and return what is printed; `code` is the exit code that is expected."""

    def answer(code: int = 0, as_json: bool = False, **asked: Any) -> str:
        try:
            answer_question(folder, leaderboard, Question(**asked), as_json)
            ended = 0
        except typer.Exit as end:
            ended = end.exit_code
        assert ended == code
        return capsys.readouterr().out

    return answer


def test_nothing_asked() -> None:
    assert not Question().is_asked
    assert Question(max_macs=0.5).is_asked
    assert Question(latency_table=Path("x")).is_asked


def test_best_within_a_latency(ask: Ask, table: Path, folder: StudyFolder) -> None:
    text = ask(max_latency_ms=14.0, min_retention=0.9, latency_table=table)
    first, how, *_ = text.splitlines()
    assert first == (
        "Best of 3 different levels of 1 trials with latency <= 14 ms and retention >= 0.9: trial "
        "0, level 1: retention 0.950, 50% of the units removed, 13 ms, 52% of the parameters, 50% "
        "of the MACs"
    )
    assert "1 x 128 tokens, 1 thread, float32, cpu: median error 2.1%, largest 5.4%" in how
    assert "on the report split it was not measured" in text
    assert read_size((folder.report / "pareto.png").read_bytes())[1] == 460


def test_dense_model_can_be_the_answer(ask: Ask, table: Path) -> None:
    assert "20 ms: the dense model: retention 1.000" in ask(max_latency_ms=20, latency_table=table)


def test_shares_need_no_table(ask: Ask) -> None:
    text = ask(max_macs=0.3)
    assert "with macs <= 0.3 of dense: trial 0, level 2: retention 0.750" in text
    assert "MACs of 128 tokens." in text
    assert "ms," not in text


def test_fronts_without_constraints(ask: Ask, table: Path) -> None:
    text = ask(latency_table=table)
    rows = [line.split() for line in text.splitlines() if re.match(r"\s+\d+%", line)]
    assert [row[0] for row in rows] == ["0%", "50%", "75%"]
    assert [row[3] for row in rows] == ["19", "13", "10"]
    assert all(row.count("*") == 3 for row in rows)


def test_nothing_meets_it(ask: Ask, table: Path, tmp_path: Path) -> None:
    mask = tmp_path / "answer.safetensors"
    text = ask(code=1, max_latency_ms=12, min_retention=0.9, latency_table=table, mask=mask)
    (line,) = [line for line in text.splitlines() if line.startswith("none of")]
    assert line == (
        "none of 3 different levels of 1 trials has latency <= 12 ms and retention >= 0.9; nearest "
        "is trial 0, level 1: retention 0.950, 50% of the units removed, 13 ms, 52% of the "
        "parameters, 50% of the MACs (latency 8.3% above the limit)"
    )
    assert not mask.exists()


def test_programs_get_numbers(ask: Ask, table: Path) -> None:
    values = json.loads(ask(as_json=True, max_latency_ms=14, latency_table=table))
    assert values["constraints"]["max_latency"] == 0.014
    assert (values["answer"]["trial"], values["answer"]["level"]) == (0, 1)
    assert values["answer"]["latency"] == pytest.approx(0.013)
    assert values["answer"]["mask"] == keep(2, 10).digest
    assert values["prediction_error"]["largest"] == 0.054
    assert [point["level"] for point in values["fronts"]["latency"]] == [2, 1, 0]
    values = json.loads(ask(code=1, as_json=True, max_latency_ms=1, latency_table=table))
    assert values["answer"] is None
    assert values["nearest"]["level"] == 2


def test_mask_of_the_answer(ask: Ask, table: Path, tmp_path: Path) -> None:
    path = tmp_path / "answer.safetensors"
    assert str(path) in ask(max_latency_ms=11, latency_table=table, mask=path)
    mask = Mask.load(path)
    assert mask == keep(1, 5)
    assert mask.metadata["checkpoint"] == CHECKPOINT
    assert (mask.metadata["trial"], mask.metadata["level"]) == (0, 2)
    assert mask.metadata["milestone"] is None
    assert mask.metadata["metrics"]["report"] is None
    assert mask.metadata["metrics"]["retention"] == pytest.approx(0.75)
    assert mask.metadata["constraints"]["max_latency"] == 0.011
    assert mask.metadata["predicted_latency"]["seconds"] == pytest.approx(0.010)
    assert mask.metadata["predicted_latency"]["length"] == 128


def test_study_with_a_table_of_its_own(ask: Ask, folder: StudyFolder) -> None:
    """Its trials were rated by it, wherever it was measured."""
    write_table(make_table(), folder.latency_table)
    assert "level 1: retention 0.950" in ask(max_latency_ms=14)


def test_length_decides_macs_where_there_is_no_table(ask: Ask) -> None:
    assert "MACs of 16 tokens." in ask(max_macs=0.6, length=16)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"max_latency_ms": 0.0}, "--max-latency-ms: 0; it must be above 0"),
        ({"max_latency_ms": float("nan")}, "--max-latency-ms: nan; it must be above 0"),
        ({"min_retention": float("inf")}, "--min-retention: inf is no share"),
        ({"max_macs": 0.0}, "--max-macs: 0; it is a share of the dense encoder"),
        ({"max_parameters": 1e6}, "--max-parameters: 1e+06; it is a share of the dense encoder"),
        ({"max_latency_ms": 4.0}, "--max-latency-ms: takes a table; measure one with distprune"),
    ],
    ids=str,
)
def test_bad_limits(asked: dict[str, Any], line: str, ask: Ask, folder: StudyFolder) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(line)}") as caught:
        ask(**asked)
    assert "\n" not in str(caught.value)
    assert not folder.report.exists()


class TestBadTable:
    """A table that does not hold for this study, this machine or what was asked."""

    def test_missing(self, ask: Ask, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="does not exist"):
            ask(latency_table=tmp_path / "nowhere.json")

    def test_other_machine(self, ask: Ask, table: Path) -> None:
        write_table(make_table(), table)
        with pytest.raises(ConfigError, match=r"measured on Fast 9000 .* or say --any-machine"):
            ask(latency_table=table)
        assert "13 ms" in ask(max_latency_ms=14, latency_table=table, any_machine=True)

    def test_other_architecture(self, ask: Ask, table: Path) -> None:
        other = Architecture("bert", replace(SHAPE, num_heads=2, head_size=12))
        write_table(make_table(machine=describe_machine(), architecture=other), table)
        with pytest.raises(ConfigError, match=r"measured of bert .* of 2 heads .* of 4 heads"):
            ask(latency_table=table, any_machine=True)

    def test_other_threads(self, ask: Ask, table: Path) -> None:
        with pytest.raises(ConfigError, match="nothing was measured for threads 8; it has: 1 x"):
            ask(latency_table=table, threads=8)

    def test_several_conditions(self, ask: Ask, table: Path) -> None:
        large = make_latencies(conditions=replace(CONDITIONS, batch=32))
        write_table(make_table(make_latencies(), large, machine=describe_machine()), table)
        with pytest.raises(ConfigError, match="2 conditions fit"):
            ask(latency_table=table)
        assert "32 x 128 tokens" in ask(latency_table=table, batch=32)

    def test_study_whose_masks_say_nothing(
        self, ask: Ask, folder: StudyFolder, table: Path
    ) -> None:
        keep(2, 10).save(folder.mask(0.5))
        with pytest.raises(StorageError, match="do not say what they were made for"):
            ask(latency_table=table)
