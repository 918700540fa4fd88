"""`distprune mask`: what people see of a mask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distprune.cli.app import app
from distprune.cli.mask import format_difference, format_mask
from distprune.core.mask import Mask
from distprune.errors import ConfigError, MaskError
from tests.core.mask_strategies import make_mask

FIRST = make_mask([[1, 1, 0], [0, 0, 0]], [[1, 1, 0, 0], [1, 1, 1, 1]])
SECOND = make_mask([[1, 0, 1], [0, 0, 0]], [[0, 1, 1, 0], [0, 0, 0, 0]])


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    paths = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    FIRST.with_metadata({"checkpoint": {"name": "tiny"}, "study": "movies"}).save(paths[0])
    SECOND.with_metadata({"checkpoint": {"name": "tiny"}}).save(paths[1])
    return str(paths[0]), str(paths[1])


def call(*words: str) -> str:
    result = CliRunner().invoke(app, ["mask", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_mask_is_shown_head_by_head() -> None:
    lines = format_mask(FIRST).splitlines()
    assert lines[1].split() == ["0", "##.", "2", "############............", "2", "of", "4"]
    assert lines[2].split() == ["1", "...", "0", "#" * 24, "4", "of", "4"]
    assert lines[3] == "2 of 6 heads kept (66.7 % removed), 6 of 8 neurons kept (25 % removed)"


def test_a_difference_is_shown_head_by_head() -> None:
    lines = format_difference(FIRST, SECOND).splitlines()
    assert lines[1].split() == ["0", "=12", "0.33", "0.33"]
    assert lines[2].split() == ["1", "...", "1.00", "0.00"]


def test_show_prints_what_is_known(files: tuple[str, str], tmp_path: Path) -> None:
    picture = tmp_path / "mask.png"
    text = call("show", files[0], "--png", str(picture))
    assert "checkpoint   tiny" in text
    assert "study movies" in text
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_show_prints_json(files: tuple[str, str]) -> None:
    values = json.loads(call("show", files[0], "--json"))
    assert values["kept_per_layer"] == {"head": [2, 0], "neuron": [2, 4]}
    assert values["sparsity"]["neuron"] == 0.25
    assert values["digest"] == FIRST.digest


def test_diff_draws_and_prints(files: tuple[str, str], tmp_path: Path) -> None:
    picture = tmp_path / "difference.png"
    assert "same heads" in call("diff", *files, "--png", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    values = json.loads(call("diff", *files, "--json"))["jaccard_per_layer"]
    assert values == {"head": [pytest.approx(1 / 3), 1.0], "neuron": [pytest.approx(1 / 3), 0.0]}


@pytest.mark.parametrize(
    ("how", "heads"),
    [
        ("union", [[1, 1, 1], [0, 0, 0]]),
        ("intersection", [[1, 0, 0], [0, 0, 0]]),
        ("difference", [[0, 1, 0], [0, 0, 0]]),
    ],
)
def test_merge_writes_a_mask(
    files: tuple[str, str], tmp_path: Path, how: str, heads: list[list[int]]
) -> None:
    output = tmp_path / "merged.safetensors"
    call("merge", *files, "--how", how, "--output", str(output))
    merged = Mask.load(output)
    assert merged["head"].astype(int).tolist() == heads
    assert merged.metadata["checkpoint"] == {"name": "tiny"}
    assert merged.metadata["combination"] == how
    assert "study" not in merged.metadata


def test_one_mask_is_not_merged(files: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two at least are combined"):
        call("merge", files[0], "--how", "union", "--output", str(tmp_path / "merged"))


def test_masks_of_different_models_are_not_compared(files: tuple[str, str], tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    make_mask([[1, 1]], [[1, 1, 1]]).save(other)
    with pytest.raises(MaskError, match="combine masks of one architecture only"):
        call("diff", files[0], str(other))
