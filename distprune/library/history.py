"""The history of a study: an append-only file of events, one JSON line each.

It is the durable truth about a study. The leaderboard, the progress display and the tracked runs
are projections of it, and a search that is started again reads it to go on. A line that was cut off
by a crash is dropped. Behind a URI an event is in the study's mirror before it is in the file.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from distprune.errors import StorageError
from distprune.trial.results import LevelResult, MilestoneReport

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How a trial ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True)
class TrialStarted:
    """A trial was proposed.

    Attributes:
        number: Number of the trial in the study, from 0.
        time: Seconds since the epoch.
        spec: The whole trial specification.
        parameters: The searched values by dotted name.
        proposal: Number of the trial in Optuna's study.
        is_stored: Every stage of it was in the store, so it was answered from there and not run.
        equal_to: The earlier trial of this study whose every level was the same, if there is one.
    """

    number: int
    time: float
    spec: Mapping[str, Any]
    parameters: Mapping[str, Any]
    proposal: int
    is_stored: bool = False
    equal_to: int | None = None


@dataclass(frozen=True)
class MilestoneReached:
    """A trial reached a milestone."""

    number: int
    time: float
    report: MilestoneReport


@dataclass(frozen=True)
class TrialEnded:
    """A trial ended; `message` says why where it diverged or failed."""

    number: int
    time: float
    outcome: Outcome
    message: str = ""


Event = TrialStarted | MilestoneReached | TrialEnded


@dataclass
class TrialRecord:
    """All that the history says about one trial. Filled by `read_trials` only.

    Attributes:
        start: Its first event.
        reports: Reports by milestone, in order.
        end: Its last event; None while it runs, or if it was cut off.
    """

    start: TrialStarted
    reports: dict[int, MilestoneReached] = field(default_factory=dict)
    end: TrialEnded | None = None

    @property
    def number(self) -> int:
        """Number of the trial."""
        return self.start.number

    @property
    def levels(self) -> list[LevelResult]:
        """All levels that the trial has reported, in order."""
        return [level for event in self.reports.values() for level in event.report.new_levels]


class EventMirror(Protocol):
    """Where events go before they count."""

    def add_event(self, number: int, line: bytes) -> None:
        """Write the event of this number, for good; `StudyExistsError` if there is another."""


class History:
    """Appends events to a study's history and reads them back.

    Args:
        path: The history file; made with its first event.
        mirror: Where events go first; None = the file alone counts.
    """

    def __init__(self, path: Path, mirror: EventMirror | None = None) -> None:
        self._path = path
        self._mirror = mirror
        self._writer = secrets.token_hex(8)
        self._num_events: int | None = None

    def append(self, event: Event) -> None:
        """Write an event down; it is on disk, and in the mirror, when this returns.

        Raises:
            StorageError: It cannot be written.
            StudyExistsError: Another driver writes to the mirror.
        """
        values = _to_json(event)
        if self._mirror is None:
            self._write(_spell(values))
            return
        if self._num_events is None:
            self._num_events = len(self._read_lines())
        line = _spell({**values, "writer": self._writer})
        self._mirror.add_event(self._num_events, line)
        self._num_events += 1
        self._write(line)

    def events(self) -> Iterator[Event]:
        """Yield all events in the order in which they happened."""
        for number, line in enumerate(self._read_lines(), start=1):
            if not line.strip():
                continue
            try:
                yield _from_json(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                logger.warning("history %s: line %d is cut off (%s)", self._path, number, error)

    def _read_lines(self) -> list[bytes]:
        return self._path.read_bytes().splitlines() if self._path.exists() else []

    def _write(self, line: bytes) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab+") as file:
                if _ends_in_mid_line(file.fileno()):
                    line = b"\n" + line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                f"history {self._path}: cannot be written ({error.strerror or error}); free space "
                "and start the search again, it goes on from what is stored"
            ) from error


def read_trials(events: Iterator[Event]) -> dict[int, TrialRecord]:
    """Gather events by trial; a trial that ran again keeps its latest reports.

    Raises:
        StorageError: A trial has later events and no start, so a line in the middle was lost.
    """
    trials: dict[int, TrialRecord] = {}
    for event in events:
        if isinstance(event, TrialStarted):
            trials.setdefault(event.number, TrialRecord(event))
        elif event.number not in trials:
            raise StorageError(
                f"history: the start of trial {event.number} is missing, so the file was damaged; "
                "restore it from a copy, or begin the study afresh"
            )
        elif isinstance(event, MilestoneReached):
            trials[event.number].reports[event.report.milestone] = event
        else:
            trials[event.number].end = event
    return trials


def _ends_in_mid_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _spell(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, sort_keys=True) + "\n").encode()


def _to_json(event: Event) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in event.__dataclass_fields__}
    if isinstance(event, MilestoneReached):
        values["report"] = event.report.to_json()
    return {"event": type(event).__name__, **values}


def _from_json(values: dict[str, Any]) -> Event:
    values.pop("writer", None)
    match values.pop("event"):
        case "TrialStarted":
            return TrialStarted(**values)
        case "MilestoneReached":
            report = MilestoneReport.from_json(values.pop("report"))
            return MilestoneReached(**values, report=report)
        case "TrialEnded":
            return TrialEnded(**{**values, "outcome": Outcome(values["outcome"])})
        case name:
            raise ValueError(f"event: {name!r} is unknown")
