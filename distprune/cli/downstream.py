"""What `train` and `transfer` read from the command line: tasks, settings, seeds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from distprune.cli.durations import format_duration
from distprune.core.mask import Mask
from distprune.errors import ConfigError, DatasetError
from distprune.search.space import set_values
from distprune.search.study_file import read_yaml
from distprune.tasks.spec import DEMO_DOMAINS, DEMO_PREFIX
from distprune.trial.spec import TrialSpec
from distprune.trial.validation import suggest_name, validate_settings

TRAINING_SETTINGS = ("task", "fine_tuning", "retraining", "precision", "seed")
"""Top settings that decide how a given mask is trained."""

YAML_SUFFIXES = (".yaml", ".yml")

DownstreamSetOption = typer.Option(
    None,
    "--set",
    metavar="NAME=VALUE",
    help="Replace a setting by dotted name: task.*, fine_tuning.*, retraining.*, precision, seed; "
    "for instance --set retraining.epochs=2. Can be given several times.",
    show_default=False,
)
RewindingOption = typer.Option(
    None,
    "--rewinding",
    help="Where training starts: 0 = pre-trained weights, 1 or continue = fine-tuned weights. "
    "Default: as the mask was found, else 0.",
    show_default=False,
)


def read_task(text: str) -> dict[str, Any]:
    """Return the settings of a task: of a demo domain, or of a YAML file.

    Raises:
        ConfigError: It is neither.
        DatasetError: There is no such demo domain.
    """
    if text.startswith(DEMO_PREFIX):
        domain = text.removeprefix(DEMO_PREFIX)
        if domain not in DEMO_DOMAINS:
            known = [DEMO_PREFIX + name for name in DEMO_DOMAINS]
            raise DatasetError(f"task: {text!r} is no demo task; {suggest_name(text, known)}")
        return {"dataset": text}
    path = Path(text).expanduser()
    if path.suffix.lower() not in YAML_SUFFIXES:
        demos = ", ".join(DEMO_PREFIX + name for name in DEMO_DOMAINS)
        raise ConfigError(
            f"task: {text!r} is neither a demo task ({demos}) nor a .yaml file with the settings "
            "of a task (dataset: ...); correct it"
        )
    return read_yaml(path)


def name_task(text: str) -> str:
    """Return what a task is called in a table: its domain, or the name of its file."""
    return text.removeprefix(DEMO_PREFIX) if text.startswith(DEMO_PREFIX) else Path(text).stem


def build_spec(
    checkpoint: str,
    task: Mapping[str, Any],
    overrides: Mapping[str, Any],
    base: Mapping[str, Any] | None = None,
    allowed: Iterable[str] = TRAINING_SETTINGS,
) -> TrialSpec:
    """Return the settings of the trainings.

    Args:
        checkpoint: The checkpoint.
        task: Settings of the task.
        overrides: Values by dotted name that replace those.
        base: Settings of a trial to start from.
        allowed: Top settings that `overrides` may name.

    Raises:
        ConfigError: Every problem, one line each.
    """
    names = tuple(allowed)
    for name in overrides:
        if name.partition(".")[0] not in names:
            raise ConfigError(
                f"--set {name}: is no setting of this verb; it takes {', '.join(names)} and what "
                "is below them"
            )
    tree = set_values({**(base or {}), "checkpoint": checkpoint, "task": dict(task)}, overrides)
    return validate_settings(TrialSpec, tree)


def describe_origin(mask: Mask, checkpoint: str, fingerprint: str) -> str | None:
    """Say so where a mask was found on another checkpoint than it is used on."""
    origin = mask.metadata.get("checkpoint")
    if not isinstance(origin, dict) or origin.get("fingerprint") in (None, fingerprint):
        return None
    return f"the mask was found on {origin.get('name')!s} and is used on {checkpoint}"


class Progress:
    """Says on stderr what is done, line by line, with the time left.

    Implements `distprune.search.transfer.TransferObserver`.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._begun = self._started
        self._total = 0
        self._num_done = 0

    def on_phase(self, text: str) -> None:
        """Say what comes next."""
        self.say(text)

    def on_begin(self, text: str, total: int) -> None:
        """Begin to count to `total`."""
        self._total, self._num_done = total, 0
        self._begun = time.monotonic()
        self.say(f"{text}: {total} to go")

    def on_done(self, text: str) -> None:
        """Say what is done, and how long the rest will take."""
        self._num_done += 1
        left = self._total - self._num_done
        seconds = (time.monotonic() - self._begun) / self._num_done * left
        rest = f", about {format_duration(seconds)} left" if left else ""
        self.say(f"{text} ({self._num_done} of {self._total}{rest})")

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        elapsed = format_duration(time.monotonic() - self._started)
        print(f"[{elapsed}] {text}", file=sys.stderr, flush=True)
