"""The two studies that rounds run; both take seconds, and both must end the same in any case.

They are the tests' tiny study. One ends the same whatever the order in which its trials run: no
trial is stopped, and proposals are drawn at random by number. The other hangs on every decision
before: TPE and ASHA, one trial at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.chaos.plans import StudyKind
from tests.cli.tiny_search import tiny_values
from tests.tiny_study import save_checkpoint, write_task

NUM_TRIALS = {StudyKind.PARALLEL: 6, StudyKind.SEQUENTIAL: 4}
CONCURRENT = 3


@dataclass(frozen=True)
class Inputs:
    """What the studies read: the same files for all rounds, so that parameters are the same."""

    checkpoint: Path
    task: Path


def make_inputs(folder: Path) -> Inputs:
    """Write the checkpoint and the task of the studies, if they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = Inputs(folder / "checkpoint", folder / "words.csv")
    if not inputs.task.exists():
        save_checkpoint(inputs.checkpoint, has_mlm_head=True)
        write_task(inputs.task)
    return inputs


def study_values(
    kind: StudyKind, inputs: Inputs, storage: Path | str, tracking: str | None
) -> dict[str, Any]:
    """Return the study file of one of the two studies.

    Args:
        kind: Which one.
        inputs: What it reads.
        storage: Where it is kept.
        tracking: Address of a tracking server; None = a file beside the study.
    """
    values = tiny_values(Path(storage), inputs.checkpoint, inputs.task)
    values["num_trials"] = NUM_TRIALS[kind]
    values["tracking"] = {"uri": tracking}
    if kind is StudyKind.PARALLEL:
        values["sampler"] = {"name": "random"}
        values["stopping"] = None
        values["start_with"] = []
        values["resources"]["max_concurrent"] = CONCURRENT
    return {**values, "storage": str(storage)}


def write_study(values: dict[str, Any], folder: Path) -> Path:
    """Write a study file into a new folder, and return its path."""
    folder.mkdir(parents=True)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path
