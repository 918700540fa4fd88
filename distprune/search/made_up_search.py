"""What a study would try: Optuna's own sampler, told of made-up results.

A sampler learns, so the later trials of a study are not like its first ones: they are better, go
further before they are stopped, and agree in what matters. That decides what a study costs, and
takes no model to play through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distprune.library.history import Outcome
from distprune.search.proposals import Proposer
from distprune.search.simulation import GoesOn
from distprune.search.space import Parameter, RangeKind
from distprune.search.stopping_rule import make_rule
from distprune.search.study_file import Study
from distprune.trial.spec import TrialSpec

MOST_ROUNDS = 25
"""Times that a study is played through, each with another answer of what is good."""

DRAWN_TRIALS = 1_200
"""Trials of all rounds; Optuna takes longer for each trial of a large study, and its rounds differ
less from each other."""

FALL = 0.5
"""Strength of a setting over that of the next stronger one: few settings matter (Bergstra and
Bengio, "Random Search for Hyper-Parameter Optimization", 2012, section 4); the number is ours."""

NOISE = 0.5
"""Spread of trials with equal settings, over the strength of the strongest setting; our guess."""


@dataclass(frozen=True)
class DrawnTrial:
    """A trial that a study may come to.

    Attributes:
        spec: The trial.
        quality: How good it is at every milestone, higher is better.
    """

    spec: TrialSpec
    quality: float


@dataclass(frozen=True)
class Effect:
    """What one setting does to a trial.

    Attributes:
        parameter: The setting.
        strength: Its effect at its best; it is the opposite where the value is farthest from that.
        best: The best place of its range, in [0, 1].
        places: The place of each of its choices; of a range, none.
    """

    parameter: Parameter
    strength: float
    best: float
    places: tuple[float, ...]

    @classmethod
    def draw(cls, parameter: Parameter, strength: float, generator: np.random.Generator) -> Effect:
        """Draw what is best; choices lie in any order."""
        is_choice = parameter.kind is RangeKind.CHOICE
        places = np.linspace(0.0, 1.0, len(parameter.values)) if is_choice else np.empty(0)
        order = tuple(generator.permutation(places).tolist())
        return cls(parameter, strength, float(generator.random()), order)

    def judge(self, value: Any) -> float:
        """Return the effect of a value."""
        return self.strength * math.cos(math.pi * (self._place(value) - self.best))

    def _place(self, value: Any) -> float:
        if self.places:
            return self.places[self.parameter.values.index(value)]
        low, high = self.parameter.values
        if self.parameter.kind is RangeKind.LOG_UNIFORM:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return float((value - low) / (high - low)) if high > low else 0.0


@dataclass(frozen=True)
class Landscape:
    """How good trials are: the effects of their settings added up, and noise."""

    effects: Mapping[str, Effect]

    @classmethod
    def draw(cls, parameters: Sequence[Parameter], generator: np.random.Generator) -> Landscape:
        """Draw which settings matter most, and what is best."""
        strengths = FALL ** generator.permutation(len(parameters))
        pairs = zip(parameters, strengths.tolist(), strict=True)
        return cls({one.name: Effect.draw(one, strength, generator) for one, strength in pairs})

    def judge(self, values: Mapping[str, Any], generator: np.random.Generator) -> float:
        """Draw how good a trial is; settings that have no effect in it are absent."""
        effects = sum(self.effects[name].judge(value) for name, value in values.items())
        return effects + NOISE * float(generator.normal())


def draw_rounds(
    study: Study, comparable: int, concurrent: int, folder: Path
) -> tuple[tuple[DrawnTrial, ...], ...]:
    """Draw the rounds in which a study is played through; for the arguments see `draw_search`."""
    return tuple(
        draw_search(study, comparable, concurrent, folder, number)
        for number in range(count_rounds(study.spec.num_trials))
    )


def count_rounds(num_trials: int) -> int:
    """Return how often a study of so many trials is played through."""
    return min(MOST_ROUNDS, max(1, DRAWN_TRIALS // num_trials))


def draw_search(
    study: Study, comparable: int, concurrent: int, folder: Path, number: int
) -> tuple[DrawnTrial, ...]:
    """Draw the trials that a study may come to; the first are those that it will begin with.

    Args:
        study: The study.
        comparable: The first milestone at which its objective can tell trials apart.
        concurrent: Trials that run at a time; so many are proposed before the first has ended.
        folder: Existing folder for what Optuna writes.
        number: Each has its own landscape.
    """
    generator = np.random.default_rng([study.spec.seed, number])
    landscape = Landscape.draw(study.parameters, generator)
    proposer = Proposer(study, folder / f"optuna-{number}.journal")
    drawn: list[DrawnTrial] = []
    qualities: list[float] = []
    goes_on = make_rule(study, comparable, qualities)
    for started in range(study.spec.num_trials):
        proposal = proposer.propose(started)
        qualities.append(landscape.judge(proposal.values, generator))
        drawn.append(DrawnTrial(proposal.spec, qualities[-1]))
        if (ended := started + 1 - concurrent) >= 0:
            _tell(proposer, ended, qualities[ended], goes_on, len(study.milestones))
    return tuple(drawn)


def _tell(
    proposer: Proposer, number: int, quality: float, goes_on: GoesOn, num_milestones: int
) -> None:
    """Tell Optuna of a trial that ran as far as the rule let it."""
    objectives: dict[int, float] = {}
    for milestone in range(1, num_milestones + 1):
        objectives[milestone] = quality
        proposer.report(number, milestone, quality)
        if not goes_on(number, milestone):
            break
    is_complete = len(objectives) == num_milestones
    outcome = Outcome.COMPLETED if is_complete else Outcome.STOPPED
    proposer.tell(number, outcome, objectives)
