"""Live progress of a study: what it does, the time left, running trials, the best so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distprune.cli.durations import format_duration
from distprune.cli.usage import describe_usage
from distprune.library.history import (
    Event,
    MilestoneReached,
    TrialEnded,
    TrialRecord,
    TrialStarted,
)
from distprune.library.leaderboard import choose_best
from distprune.library.study_usage import sum_up_study
from distprune.trial.usage import Usage

REFRESH_PER_SECOND = 2


def _describe_answer(event: TrialStarted) -> str:
    """Say where the results of a trial come from that is not run."""
    equal = "" if event.equal_to is None else f"; it keeps the same units as trial {event.equal_to}"
    return f"answered from the store{equal}"


class StudyProgress:
    """Shows a study on a terminal; on anything else it prints a line for each event."""

    def __init__(self, console: Console, num_trials: int, milestones: Sequence[float]) -> None:
        self._console = console
        self._num_trials = num_trials
        self._milestones = tuple(milestones)
        self._trials: dict[int, TrialRecord] = {}
        self._started = time.monotonic()
        self._session_start = time.time()
        self._first_event: float | None = None
        self._num_stored = 0
        self._num_ended = 0
        self._phase = ""
        self._start: Any = None
        self._live = Live(
            console=console, refresh_per_second=REFRESH_PER_SECOND, get_renderable=self._render
        )

    def __enter__(self) -> StudyProgress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def on_phase(self, text: str) -> None:
        """Show what the study does."""
        self._phase = text
        self._say(text)

    def on_change(self, text: str) -> None:
        """Show a setting that is not as it was; the line stays above what is live."""
        self._console.print(f"changed: {text}", markup=False, highlight=False, soft_wrap=True)

    def on_start(self, start: Any) -> None:
        """Show the reference that trials are compared with."""
        self._start = start
        self._num_stored = start.num_stored
        self._phase = "Searching"
        self._first_event = time.monotonic()
        metric, reference = start.context.task.metric, start.reference
        self._say(
            f"Dense model: {metric} {reference.dense:.4f} on the search split; a constant "
            f"prediction: {reference.floor:.4f}; {start.context.precision}"
        )
        if start.num_stored:
            self._say(f"trials done already: {start.num_stored}; going on from there")

    def on_event(self, event: Event) -> None:
        """Show a trial's start, milestone or end."""
        if isinstance(event, TrialStarted):
            self._trials.setdefault(event.number, TrialRecord(event))
            if event.is_stored:
                self._say_event(event, f"trial {event.number}: {_describe_answer(event)}")
            return
        record = self._trials[event.number]
        if isinstance(event, MilestoneReached):
            record.reports[event.report.milestone] = event
            report = event.report
            self._say_event(
                event,
                f"trial {event.number}: {report.sparsity * 100:g} % removed, "
                f"{self._metric_name} {report.metric:.4f}, retention {report.retention:.3f}",
            )
        elif isinstance(event, TrialEnded):
            self._num_ended += record.end is None
            record.end = event
            note = f" ({event.message.splitlines()[-1]})" if event.message else ""
            self._say_event(
                event, f"trial {event.number}: {event.outcome}{note}; {self._summary()}"
            )
            if self._num_ended == self._num_trials:
                self._say_event(event, describe_usage(self._usage()))

    @property
    def _metric_name(self) -> str:
        return str(self._start.context.task.metric) if self._start else "metric"

    def _say(self, text: str) -> None:
        if not self._console.is_terminal:
            elapsed = format_duration(time.monotonic() - self._started)
            self._console.print(
                f"[{elapsed}] {text}", markup=False, highlight=False, soft_wrap=True
            )

    def _say_event(self, event: Event, text: str) -> None:
        """Say what happened in this session; what earlier ones did is in the tables."""
        if event.time >= self._session_start:
            self._say(text)

    def _usage(self) -> Usage:
        return sum_up_study(self._start.shared if self._start else (), self._trials.values())

    def _summary(self) -> str:
        return f"{self._num_ended} of {self._num_trials} trials done{self._time_left()}"

    def _time_left(self) -> str:
        ended = self._num_ended - self._num_stored
        if not ended or self._first_event is None:
            return ""
        seconds = (time.monotonic() - self._first_event) / ended
        return f", about {format_duration(seconds * (self._num_trials - self._num_ended))} left"

    def _render(self) -> RenderableType:
        elapsed = format_duration(time.monotonic() - self._started)
        head = Text(f"{self._phase}  {elapsed}", style="bold")
        if self._start is None:
            return head
        bar = ProgressBar(total=self._num_trials, completed=self._num_ended, width=40)
        progress = Table.grid(padding=(0, 2))
        progress.add_row(bar, self._summary())
        usage = Text(describe_usage(self._usage()), style="dim")
        return Group(head, progress, usage, "", self._running_table(), "", self._best_table())

    def _running_table(self) -> Table:
        table = Table(
            "running trial",
            "level",
            "removed",
            self._metric_name,
            "retention",
            box=None,
            padding=(0, 3, 0, 0),
        )
        for record in self._trials.values():
            if record.end:
                continue
            last = record.reports[max(record.reports)].report if record.reports else None
            table.add_row(
                str(record.number),
                str(last.level) if last else "0",
                f"{last.sparsity * 100:g} %" if last else "0 %",
                f"{last.metric:.4f}" if last else "",
                f"{last.retention:.3f}" if last else "",
            )
        return table

    def _best_table(self) -> Table:
        table = Table(
            "best at", self._metric_name, "retention", "trial", box=None, padding=(0, 3, 0, 0)
        )
        reference = self._start.reference
        for milestone in self._milestones:
            best = choose_best(self._trials.values(), milestone, reference.higher_is_better)
            if best:
                table.add_row(
                    f"{milestone * 100:g} %",
                    f"{best.result.metric:.4f}",
                    f"{reference.retention(best.result.metric):.3f}",
                    str(best.trial.number),
                )
        return table
