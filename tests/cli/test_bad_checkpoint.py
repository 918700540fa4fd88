"""Checkpoints that cannot be used are refused before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.bad_checkpoints import (
    copy_truncated,
    copy_with_config,
    copy_with_family,
    copy_without,
    save_small_vocabulary,
)
from tests.cli.conftest import RunCommand, WriteStudy
from tests.cli.refusal import STARTING, check_nothing_done, check_refusal

Make = Callable[[Path, Path], dict[str, Any]]
"""Makes bad files in a folder from a good checkpoint, and returns the settings that name them."""

CHECKPOINTS: dict[str, tuple[Make, list[str]]] = {
    "missing folder": (
        lambda good, folder: {"trial.checkpoint": str(folder / "nowhere")},
        ["checkpoint", "nowhere", "does not exist", "correct the path"],
    ),
    "no checkpoint": (
        lambda good, folder: {"trial.checkpoint": str(folder)},
        ["checkpoint", "has no config.json", "save_pretrained"],
    ),
    "unknown demo": (
        lambda good, folder: {"trial.checkpoint": "demo:maxilm"},
        ["checkpoint", "'demo:maxilm' is unknown", "demo:minilm"],
    ),
    "unsupported family": (
        lambda good, folder: {
            "trial.checkpoint": str(copy_with_family(good, folder / "gpt", "gpt2"))
        },
        ["'gpt2'", "supported: bert, distilbert, electra, roberta"],
    ),
    "unknown family": (
        lambda good, folder: {
            "trial.checkpoint": str(copy_with_family(good, folder / "new", "nextbert"))
        },
        ["checkpoint", "new", "cannot be read"],
    ),
    "truncated weights": (
        lambda good, folder: {"trial.checkpoint": str(copy_truncated(good, folder / "cut"))},
        ["checkpoint", "the weights of", "cut", "cannot be read"],
    ),
    "no weights": (
        lambda good, folder: {
            "trial.checkpoint": str(copy_without(good, folder / "bare", "model.safetensors"))
        },
        ["checkpoint", "the weights of", "bare", "cannot be read"],
    ),
    "other shapes": (
        lambda good, folder: {
            "trial.checkpoint": str(copy_with_config(good, folder / "wide", intermediate_size=77))
        },
        ["checkpoint", "wide", "cannot be read"],
    ),
    "no tokenizer": (
        lambda good, folder: {
            "trial.checkpoint": str(copy_without(good, folder / "mute", "tokenizer.json"))
        },
        ["checkpoint", "tokenizer", "mute", "cannot be read"],
    ),
    "vocabulary too small": (
        lambda good, folder: {
            "trial.checkpoint": str(save_small_vocabulary(folder / "small", good, size=9))
        },
        ["tokenizer", "small", "token id", "must be below the 9 embeddings"],
    ),
    "text longer than the tokenizer allows": (
        lambda good, folder: {"trial.task.max_length": 64},
        ["max_length", "64", "must be at most the 32", "lower it"],
    ),
}


@pytest.mark.parametrize("verb", STARTING)
@pytest.mark.parametrize("case", CHECKPOINTS)
@pytest.mark.filterwarnings("ignore")
def test_checkpoint_that_cannot_be_used(
    verb: str,
    case: str,
    tmp_path: Path,
    mlm_checkpoint: Path,
    run_command: RunCommand,
    write_study: WriteStudy,
) -> None:
    make, words = CHECKPOINTS[case]
    changes = make(mlm_checkpoint, tmp_path)
    check_refusal(run_command(verb, write_study(changes)), 2, *words)
    check_nothing_done(tmp_path)


@pytest.mark.parametrize("verb", STARTING)
def test_objective_that_the_checkpoint_has_no_head_for(
    verb: str,
    tmp_path: Path,
    body_checkpoint: Path,
    run_command: RunCommand,
    write_study: WriteStudy,
) -> None:
    changes = {
        "trial.checkpoint": str(body_checkpoint),
        "trial.pruning.importance.pretrained_objective": "mlm",
        "trial.pruning.mixing.coefficient": 0.5,
        "start_with": [],
    }
    words = ["pretrained_objective", "'mlm'", str(body_checkpoint), "has none", "'task_probe'"]
    check_refusal(run_command(verb, write_study(changes)), 2, *words)
    check_nothing_done(tmp_path)
