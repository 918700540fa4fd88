"""Progress: a line for each event where nobody watches, a live table where somebody does."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from distprune.cli.durations import format_duration
from distprune.cli.progress import StudyProgress
from distprune.core.retention import Reference
from distprune.library.history import MilestoneReached, Outcome, TrialEnded, TrialStarted
from distprune.trial.results import MilestoneReport
from distprune.trial.usage import StageUse
from tests.search.synthetic import make_level

REFERENCE = Reference(dense=0.9, floor=0.5)


def make_start(num_stored: int = 0) -> Any:
    context = SimpleNamespace(task=SimpleNamespace(metric="accuracy"), precision="float32")
    return SimpleNamespace(context=context, reference=REFERENCE, shared=(), num_stored=num_stored)


def make_report(milestone: int, metric: float) -> MilestoneReport:
    level = make_level(milestone, 0.2 * milestone, metric)
    retention = REFERENCE.retention(metric)
    return MilestoneReport(
        milestone, level.sparsity, retention, retention, metric, milestone, (level,)
    )


def show(progress: StudyProgress) -> None:
    """Let a study happen: trial 0 ended in an earlier session, 1 failed in this one, 2 runs."""
    progress.on_phase("Starting Ray")
    progress.on_start(make_start(num_stored=1))
    for number in range(3):
        when = 0.0 if number == 0 else time.time()
        progress.on_event(TrialStarted(number, when, {}, {}, number))
        report = make_report(1, 0.8 - 0.1 * number)
        progress.on_event(MilestoneReached(number, when, report))
    progress.on_event(MilestoneReached(0, 0.0, make_report(2, 0.7)))
    progress.on_event(TrialEnded(0, 0.0, Outcome.STOPPED))
    message = "Traceback\n  line\nKeyError: 'lost'"
    progress.on_event(TrialEnded(1, time.time(), Outcome.FAILED, message))


def run(is_terminal: bool) -> tuple[str, StudyProgress]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=100)
    with StudyProgress(console, num_trials=4, milestones=[0.2, 0.4]) as progress:
        show(progress)
    return file.getvalue(), progress


def test_lines_for_a_log() -> None:
    text, _ = run(is_terminal=False)
    assert "\x1b" not in text
    lines = [line.partition("] ")[2] for line in text.splitlines()]
    assert lines[0] == "Starting Ray"
    assert "accuracy 0.9000 on the search split; a constant prediction: 0.5000" in lines[1]
    assert lines[2] == "trials done already: 1; going on from there"
    assert lines[3:5] == [
        "trial 1: 20 % removed, accuracy 0.7000, retention 0.500",
        "trial 2: 20 % removed, accuracy 0.6000, retention 0.250",
    ]
    assert lines[5].startswith("trial 1: failed (KeyError: 'lost'); 2 of 4 trials done")
    assert len(lines) == 6


def test_table_for_a_person() -> None:
    text, progress = run(is_terminal=True)
    assert "\x1b" in text
    console = Console(file=io.StringIO(), width=100)
    console.print(progress._render())
    shown = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert ["2", "1", "20", "%", "0.6000", "0.250"] in shown
    assert ["20", "%", "0.8000", "0.750", "0"] in shown
    assert ["40", "%", "0.7000", "0.500", "0"] in shown
    assert any("2 of 4 trials done" in " ".join(line) for line in shown)


def test_before_the_first_trial_there_is_a_phase_only() -> None:
    console = Console(file=io.StringIO(), width=100)
    progress = StudyProgress(console, 4, [0.5])
    progress.on_phase("Reading checkpoint and data")
    console.print(progress._render())
    assert "Reading checkpoint and data" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3723.2, "1:02:03")]
)
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_answered_trial_and_cost_are_told() -> None:
    file = io.StringIO()
    with StudyProgress(Console(file=file, width=120), 1, [0.2]) as progress:
        progress.on_start(make_start())
        progress.on_event(TrialStarted(0, time.time(), {}, {}, 0, is_stored=True, equal_to=None))
        use = StageUse("retrain", "a", False, 75.0, 1000)
        report = make_report(1, 0.8)
        levels = (replace(report.new_levels[0], uses=(use,)),)
        progress.on_event(MilestoneReached(0, time.time(), replace(report, new_levels=levels)))
        progress.on_event(TrialEnded(0, time.time(), Outcome.COMPLETED))
    assert "trial 0: answered from the store\n" in file.getvalue()
    assert "stages: 0 computed in 0:00 (0 MiB), 1 reused (1:15 saved)" in file.getvalue()
