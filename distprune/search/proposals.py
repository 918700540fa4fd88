"""Proposals: Optuna's side of a study. It proposes values and is told what became of them.

Accuracy falls as pruning proceeds, so a trial that was stopped early ends with a high value. It is
therefore told as PRUNED, with its intermediate values by milestone; only a trial that reached the
last milestone is COMPLETE. The sampler is seeded anew for each trial by the study's seed and the
trial's number, and Optuna's study is made anew from the history whenever a search starts. So a
study that was interrupted proposes what it would have proposed, whatever became of Optuna's files.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from distprune.errors import ConfigError
from distprune.library.history import Outcome, TrialRecord
from distprune.search.optuna_journal import JournalFile
from distprune.search.space import Parameter, RangeKind
from distprune.search.spec import SamplerSpec
from distprune.search.study_file import Study
from distprune.trial.spec import TrialSpec

STATES = {
    Outcome.COMPLETED: TrialState.COMPLETE,
    Outcome.STOPPED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.FAIL,
    Outcome.FAILED: TrialState.FAIL,
}


@dataclass(frozen=True)
class Proposal:
    """A configuration to try.

    Attributes:
        spec: The trial.
        values: The searched values, by dotted name; inactive settings are absent.
    """

    spec: TrialSpec
    values: Mapping[str, Any]


class Proposer:
    """Proposes trials of a study through Optuna. Trials go by their numbers in the study.

    Args:
        study: The study.
        journal: File that gets Optuna's journal, for other programs.
    """

    def __init__(self, study: Study, journal: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = study
        self._path = journal
        self._running: dict[int, Trial] = {}
        self._begin()

    def _begin(self) -> None:
        """Make an empty study; the journal of another one is replaced once there is a trial."""
        self._running.clear()
        self._journal = JournalFile(self._path)
        self._optuna = optuna.create_study(
            study_name=self._study.spec.name,
            storage=optuna.storages.JournalStorage(self._journal),
            direction="maximize",
        )

    def rebuild(self, trials: Mapping[int, TrialRecord]) -> None:
        """Make Optuna's study anew from what the history says; trials without an end run again.

        Raises:
            StorageError: Optuna's journal cannot be written.
        """
        self._begin()
        for place, (number, record) in enumerate(sorted(trials.items())):
            self._optuna.add_trial(freeze_trial(self._study, record))
            if record.end is None:
                self._running[number] = Trial(self._optuna, place)  # Optuna counts them so, too
        self._journal.flush()

    def propose(self, number: int) -> Proposal:
        """Propose the study's trial `number`.

        Raises:
            StorageError: Optuna's journal cannot be written.
        """
        spec = self._study.spec
        self._optuna.sampler = make_sampler(spec.sampler, spec.seed, number)
        if number < len(spec.start_with):
            encoded = {name: _encode(value) for name, value in spec.start_with[number].items()}
            self._optuna.enqueue_trial(encoded)
        trial = self._optuna.ask()
        values = suggest_values(trial, self._study)
        self._running[number] = trial
        self._journal.flush()
        return Proposal(self._study.make_trial(values), values)

    def report(self, number: int, milestone: int, objective: float) -> None:
        """Tell Optuna the objective of a running trial at a milestone."""
        self._running[number].report(objective, step=milestone)
        self._journal.flush()

    def tell(self, number: int, outcome: Outcome, objectives: Mapping[int, float]) -> None:
        """Tell Optuna how a running trial ended, and its objectives by milestone."""
        state = _judge(outcome, objectives)
        value = objectives[max(objectives)] if state is TrialState.COMPLETE else None
        self._optuna.tell(self._running.pop(number), value, state=state)
        self._journal.flush()


def _judge(outcome: Outcome, objectives: Mapping[int, float]) -> TrialState:
    """Return Optuna's state of a trial; one that was stopped without a milestone tells nothing."""
    return STATES[outcome] if objectives else TrialState.FAIL


def freeze_trial(study: Study, record: TrialRecord) -> FrozenTrial:
    """Return a trial of the history as Optuna knew it when the history's last line was written."""
    objectives = {m: event.report.objective for m, event in sorted(record.reports.items())}
    state = TrialState.RUNNING if record.end is None else _judge(record.end.outcome, objectives)
    has_value = state in (TrialState.COMPLETE, TrialState.PRUNED)
    values = record.start.parameters
    trial = optuna.trial.create_trial(
        state=state,
        value=objectives[max(objectives)] if has_value else None,
        params={name: _encode(value) for name, value in values.items()},
        distributions={
            parameter.name: make_distribution(parameter)
            for parameter in study.parameters
            if parameter.name in values
        },
        intermediate_values=objectives,
    )
    trial.datetime_start = datetime.fromtimestamp(record.start.time)
    if record.end is not None:
        trial.datetime_complete = datetime.fromtimestamp(record.end.time)
    return trial


def suggest_values(trial: Trial, study: Study) -> dict[str, Any]:
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


class OneDriverSampler(optuna.samplers.TPESampler):
    """TPE that takes running trials for what their parameters say.

    Optuna also counts values that it drew beforehand and that the trial then had no use for. That
    helps drivers that draw at the same time. One driver alone draws one trial after the other, and
    no history knows such values.
    """

    def _get_params(self, trial: FrozenTrial, *_: Any) -> dict[str, Any]:
        return trial.params


def make_sampler(spec: SamplerSpec, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of trial `number`, seeded by the study's seed and the number alone."""
    entropy = np.random.SeedSequence([seed, number]).generate_state(1)[0]
    if spec.name == "random":
        return optuna.samplers.RandomSampler(seed=int(entropy))
    with warnings.catch_warnings():
        # `group` is experimental; settings without effect are no parameters, so trials differ.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return OneDriverSampler(
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


def make_distribution(parameter: Parameter) -> BaseDistribution:
    """Return how Optuna draws a searched setting."""
    if parameter.kind is RangeKind.CHOICE:
        return CategoricalDistribution([_encode(value) for value in parameter.values])
    low, high = parameter.values
    if parameter.kind is RangeKind.INT:
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=parameter.kind is RangeKind.LOG_UNIFORM)


def _suggest(trial: Trial, parameter: Parameter) -> Any:
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
