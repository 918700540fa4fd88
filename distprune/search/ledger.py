"""The ledger: what happens in a study is written down in order, then told to whom it concerns.

It knows neither Ray nor MLflow. The history comes first, because it is the durable truth; Optuna
and the observers are told after it. After an interruption Optuna's study is made anew from it, and
the observers hear all of it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from distprune.library.history import (
    Event,
    History,
    MilestoneReached,
    Outcome,
    TrialEnded,
    TrialRecord,
    TrialStarted,
    read_trials,
)
from distprune.search.proposals import Proposer
from distprune.trial.results import MilestoneReport
from distprune.trial.spec import TrialSpec

Observer = Callable[[Event], None]


@dataclass(frozen=True)
class Assignment:
    """A trial to run."""

    number: int
    spec: TrialSpec


@dataclass
class Ledger:
    """Hands out trials and records what becomes of them.

    A trial of which every stage is stored is answered at once and never handed out.

    Attributes:
        num_trials: Trials of the study in all.
        num_milestones: Milestones of the study.
        history: Where events are written down.
        proposer: Proposes new trials and is told about them.
        observers: Called with each new event.
        answer: Returns what a trial would report, if all of it is stored; else None.
        on_answered: Called with the reports of a trial that was answered.
    """

    num_trials: int
    num_milestones: int
    history: History
    proposer: Proposer
    observers: Sequence[Observer] = ()
    answer: Callable[[TrialSpec], Sequence[MilestoneReport] | None] = lambda spec: None
    on_answered: Callable[[Sequence[MilestoneReached]], None] = lambda reports: None
    trials: dict[int, TrialRecord] = field(init=False)
    _interrupted: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.trials = read_trials(self.history.events())
        self._interrupted = [n for n, record in sorted(self.trials.items()) if not record.end]
        self.proposer.rebuild(self.trials)

    def assign(self) -> Assignment | None:
        """Return the next trial to run, interrupted ones before new ones; None = no more."""
        while self._interrupted:
            number = self._interrupted.pop(0)
            start = self.trials[number].start
            spec = TrialSpec.model_validate(start.spec)
            reports = self.answer(spec) if start.is_stored else None
            if reports is None:
                return Assignment(number, spec)
            self._close(number, reports)
        while (number := max(self.trials, default=-1) + 1) < self.num_trials:
            proposal = self.proposer.propose(number)
            reports = self.answer(proposal.spec)
            start = TrialStarted(
                number=number,
                time=time.time(),
                spec=proposal.spec.model_dump(mode="json"),
                parameters=dict(proposal.values),
                proposal=number,
                is_stored=reports is not None,
                equal_to=self._find_equal(reports) if reports else None,
            )
            self._record(start)
            if reports is None:
                return Assignment(number, proposal.spec)
            self._close(number, reports)
        return None

    def _close(self, number: int, reports: Sequence[MilestoneReport]) -> None:
        """Record all reports of a trial that was answered, and its end."""
        for report in reports:
            self.report(number, report)
        self.end(number)
        self.on_answered(tuple(self.trials[number].reports.values()))

    def _find_equal(self, reports: Sequence[MilestoneReport]) -> int | None:
        """Return the first trial whose levels all come from the same entries."""
        wanted = [level.lineage.evaluation for report in reports for level in report.new_levels]
        for number, record in self.trials.items():
            if [level.lineage.evaluation for level in record.levels] == wanted:
                return number
        return None

    def report(self, number: int, report: MilestoneReport) -> None:
        """Record that a trial reached a milestone; a repetition after a restart changes nothing."""
        record = self.trials[number]
        if record.end is not None or report.milestone in record.reports:
            return
        self._record(MilestoneReached(number, time.time(), report))
        self.proposer.report(number, report.milestone, report.objective)

    def end(self, number: int, outcome: Outcome | None = None, message: str = "") -> None:
        """Record that a trial ended; None = completed or stopped, as its last milestone says."""
        record = self.trials[number]
        if record.end is not None:
            return
        last = max(record.reports, default=0)
        if outcome is None:
            outcome = Outcome.COMPLETED if last == self.num_milestones else Outcome.STOPPED
        self._record(TrialEnded(number, time.time(), outcome, message))
        objectives = {m: event.report.objective for m, event in record.reports.items()}
        self.proposer.tell(number, outcome, objectives)

    def _record(self, event: Event) -> None:
        self.history.append(event)
        if isinstance(event, TrialStarted):
            self.trials[event.number] = TrialRecord(event)
        elif isinstance(event, MilestoneReached):
            self.trials[event.number].reports[event.report.milestone] = event
        else:
            self.trials[event.number].end = event
        for observe in self.observers:
            observe(event)
