"""Proposals: Optuna's side of a study. It proposes values and is told what became of them.

Accuracy falls as pruning proceeds, so a trial that was stopped early ends with a high value. It is
therefore told as PRUNED, with its intermediate values by milestone; only a trial that reached the
last milestone is COMPLETE. The sampler is seeded anew for each trial by the study's seed and the
trial's number, so that a study that was interrupted proposes what it would have proposed.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import LOCK_FILE_SUFFIX

from distprune.errors import ConfigError, StorageError
from distprune.library.history import Outcome, TrialRecord
from distprune.search.space import Parameter, RangeKind
from distprune.search.spec import SamplerSpec
from distprune.search.study_file import Study
from distprune.trial.results import MilestoneReport
from distprune.trial.spec import TrialSpec

logger = logging.getLogger(__name__)

STATES = {
    Outcome.COMPLETED: optuna.trial.TrialState.COMPLETE,
    Outcome.STOPPED: optuna.trial.TrialState.PRUNED,
    Outcome.DIVERGED: optuna.trial.TrialState.FAIL,
    Outcome.FAILED: optuna.trial.TrialState.FAIL,
}


@dataclass(frozen=True)
class Proposal:
    """A configuration to try.

    Attributes:
        number: Optuna's number of it.
        spec: The trial.
        values: The searched values, by dotted name; inactive settings are absent.
    """

    number: int
    spec: TrialSpec
    values: Mapping[str, Any]


class Proposer:
    """Proposes trials of a study through Optuna, in a journal file beside it."""

    def __init__(self, study: Study, journal: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = study
        self._optuna = optuna.create_study(
            study_name=study.spec.name,
            storage=_open_journal(journal),
            direction="maximize",
            load_if_exists=True,
        )

    def propose(self, number: int) -> Proposal:
        """Propose the study's trial `number`.

        Raises:
            StorageError: Optuna's journal cannot be written.
        """
        with _journal_failures():
            return self._propose(number)

    def _propose(self, number: int) -> Proposal:
        spec = self._study.spec
        self._optuna.sampler = make_sampler(spec.sampler, spec.seed, number)
        if number < len(spec.start_with):
            encoded = {name: _encode(value) for name, value in spec.start_with[number].items()}
            self._optuna.enqueue_trial(encoded)
        trial = self._optuna.ask()
        values = suggest_values(trial, self._study)
        return Proposal(trial.number, self._study.make_trial(values), values)

    def report(self, number: int, report: MilestoneReport) -> None:
        """Tell Optuna the objective of trial `number` (Optuna's) at a milestone."""
        with _journal_failures():
            self._trial(number).report(report.objective, step=report.milestone)

    def tell(self, number: int, outcome: Outcome, objective: float | None) -> None:
        """Tell Optuna how trial `number` (Optuna's) ended; `objective` of a completed one."""
        state = STATES[outcome]
        if outcome is Outcome.STOPPED and not self._trial_values(number):
            state = optuna.trial.TrialState.FAIL
        value = objective if outcome is Outcome.COMPLETED else None
        with _journal_failures():
            self._optuna.tell(number, value, state=state)

    def reconcile(self, trials: Mapping[int, TrialRecord]) -> None:
        """Bring Optuna's study to what the history says, after an interruption.

        A trial that Optuna thinks is running, and that the history does not go on with, would repel
        the sampler for ever.
        """
        by_proposal = {record.start.proposal: record for record in trials.values()}
        for trial in self._optuna.get_trials(deepcopy=False):
            if trial.state.is_finished():
                continue
            record = by_proposal.get(trial.number)
            if record is None:
                # Not `tell`: it refuses a trial that was enqueued and not asked for any more.
                self._optuna._storage.set_trial_state_values(
                    trial._trial_id, optuna.trial.TrialState.FAIL
                )
                continue
            for milestone, event in record.reports.items():
                if milestone not in trial.intermediate_values:
                    self.report(trial.number, event.report)
            if record.end is not None:
                last = max(record.reports, default=None)
                objective = record.reports[last].report.objective if last else None
                self.tell(trial.number, record.end.outcome, objective)

    def _trial(self, number: int) -> optuna.trial.Trial:
        frozen = self._optuna.get_trials(deepcopy=False)[number]
        return optuna.trial.Trial(self._optuna, frozen._trial_id)

    def _trial_values(self, number: int) -> Mapping[int, float]:
        return self._optuna.get_trials(deepcopy=False)[number].intermediate_values


def suggest_values(trial: optuna.trial.Trial, study: Study) -> dict[str, Any]:
    """Draw a value for each searched setting that has an effect, given the values of the others.

    Settings without effect are no parameters of the trial: λ of a one-source trial, for example.
    """
    values: dict[str, Any] = {}
    waiting = list(study.parameters)
    while waiting:
        inactive = _inactive(study, values)
        # A setting is drawn once no other waiting setting can make it inactive any more.
        parameter = next(
            (p for p in waiting if not _may_become_inactive(p, waiting, study, values)), waiting[0]
        )
        waiting.remove(parameter)
        if parameter.name not in inactive:
            values[parameter.name] = _suggest(trial, parameter)
    final = _inactive(study, values)
    return {name: value for name, value in values.items() if name not in final}


def make_sampler(spec: SamplerSpec, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of trial `number`, seeded by the study's seed and the number alone."""
    entropy = np.random.SeedSequence([seed, number]).generate_state(1)[0]
    if spec.name == "random":
        return optuna.samplers.RandomSampler(seed=int(entropy))
    with warnings.catch_warnings():
        # `group` is experimental; settings without effect are no parameters, so trials differ.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=int(entropy), n_startup_trials=spec.startup_trials, multivariate=True, group=True
        )


def _inactive(study: Study, values: Mapping[str, Any]) -> frozenset[str]:
    return study.make_trial(values).inactive_settings()


def _may_become_inactive(
    parameter: Parameter, waiting: list[Parameter], study: Study, values: Mapping[str, Any]
) -> bool:
    """Say whether a value of another waiting setting takes the effect away from `parameter`."""
    for other in waiting:
        if other is parameter:
            continue
        for probe in other.probes:
            try:
                if parameter.name in _inactive(study, {**values, other.name: probe}):
                    return True
            except ConfigError:
                continue
    return False


def _suggest(trial: optuna.trial.Trial, parameter: Parameter) -> Any:
    if parameter.kind is RangeKind.CHOICE:
        return _decode(
            trial.suggest_categorical(parameter.name, [_encode(v) for v in parameter.values])
        )
    low, high = parameter.values
    if parameter.kind is RangeKind.INT:
        return trial.suggest_int(parameter.name, low, high)
    return trial.suggest_float(
        parameter.name, low, high, log=parameter.kind is RangeKind.LOG_UNIFORM
    )


def _encode(value: Any) -> Any:
    """Return a choice as Optuna's storage can keep it: scalars as they are, the rest as JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return "json:" + json.dumps(value)


def _decode(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("json:"):
        return json.loads(value.removeprefix("json:"))
    return value


@contextmanager
def _journal_failures() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"Optuna's journal: cannot be written ({error.strerror or error}); free space and "
            "start the search again, it goes on from what is stored"
        ) from error


def _open_journal(path: Path) -> optuna.storages.JournalStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    _mend_journal(path)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def _mend_journal(path: Path) -> None:
    """Remove what a driver that died in mid-write has left; the study's lease is ours by now.

    Optuna would append to the torn line, and wait half a minute for the dead one's lock.
    """
    path.with_name(path.name + LOCK_FILE_SUFFIX).unlink(missing_ok=True)
    if path.exists():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
