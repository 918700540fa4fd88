"""`distprune check`: what of a checkpoint can be pruned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.bad_checkpoints import copy_with_family
from tests.cli.conftest import RunCommand
from tests.tiny_study import SHAPE


def test_json_is_for_programs(mlm_checkpoint: Path, run_command: RunCommand) -> None:
    finished = run_command("check", mlm_checkpoint, "--json")
    assert finished.code == 0
    facts = json.loads(finished.out)
    assert facts["model_type"] == "bert"
    assert facts["shape"]["num_layers"] == SHAPE.num_layers
    assert facts["has_mlm_head"] is True
    assert facts["pretrained_objective"] == "mlm"


@pytest.mark.parametrize(
    ("fixture", "words"),
    [
        ("mlm_checkpoint", ["MLM head            its own", "auto = mlm"]),
        ("body_checkpoint", ["MLM head            none", "auto = task_probe"]),
    ],
)
def test_text_is_for_people(
    fixture: str, words: list[str], request: pytest.FixtureRequest, run_command: RunCommand
) -> None:
    checkpoint = request.getfixturevalue(fixture)
    finished = run_command("check", checkpoint)
    assert (finished.code, finished.err) == (0, "")
    total = SHAPE.num_layers * SHAPE.num_heads
    for word in [str(checkpoint), f"{total} ({SHAPE.num_heads} a layer)", *words]:
        assert word in finished.out


def test_unsupported_family(tmp_path: Path, mlm_checkpoint: Path, run_command: RunCommand) -> None:
    copy = copy_with_family(mlm_checkpoint, tmp_path / "gpt", "gpt2")
    finished = run_command("check", copy)
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert line.startswith("error: model family: 'gpt2' has no anatomy; supported: bert, ")


@pytest.mark.filterwarnings("ignore")
def test_name_of_the_hub_without_a_network(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    finished = run_command("check", "nobody/nothing")
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert line.startswith("error: checkpoint: 'nobody/nothing' is no folder and the hub")
    assert "connect to the network or name a local folder" in line
