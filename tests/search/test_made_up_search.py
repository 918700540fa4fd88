"""A made-up search begins as the study will, and its sampler learns."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.search.made_up_search import FALL, Effect, Landscape, count_rounds, draw_search
from distprune.search.proposals import Proposer
from distprune.search.space import Parameter, RangeKind
from tests.search.synthetic import make_study

COEFFICIENT = "pruning.mixing.coefficient"
RANGES: dict[RangeKind, tuple[Any, ...]] = {
    RangeKind.UNIFORM: (0.0, 2.0),
    RangeKind.LOG_UNIFORM: (1e-5, 1e-3),
    RangeKind.INT: (2, 6),
}


def make_effect(kind: RangeKind, best: float) -> Effect:
    return Effect(Parameter("one", kind, RANGES[kind]), 0.5, best, ())


@pytest.mark.parametrize(
    ("kind", "middle"),
    [(RangeKind.UNIFORM, 1.0), (RangeKind.LOG_UNIFORM, 1e-4), (RangeKind.INT, 4)],
)
def test_effect_falls_from_the_best_place_of_a_range(kind: RangeKind, middle: float) -> None:
    low, high = RANGES[kind]
    assert make_effect(kind, 0.5).judge(middle) == pytest.approx(0.5)
    assert make_effect(kind, 0.0).judge(low) == pytest.approx(0.5)
    assert make_effect(kind, 0.0).judge(middle) == pytest.approx(0.0)
    assert make_effect(kind, 0.0).judge(high) == pytest.approx(-0.5)


def test_range_of_one_value_has_one_effect() -> None:
    effect = Effect(Parameter("one", RangeKind.INT, (3, 3)), 0.5, 0.0, ())
    assert effect.judge(3) == 0.5


def test_choices_lie_in_any_order() -> None:
    choices = Parameter("one", RangeKind.CHOICE, ("a", "b", "c"))
    drawn = {Effect.draw(choices, 1.0, np.random.default_rng(seed)).places for seed in range(50)}
    assert len(drawn) == 6
    assert all(sorted(places) == [0.0, 0.5, 1.0] for places in drawn)


@given(st.integers(0, 2**31))
def test_one_setting_matters_most_and_each_other_half_as_much(seed: int) -> None:
    parameters = make_study().parameters
    landscape = Landscape.draw(parameters, np.random.default_rng(seed))
    strengths = sorted((one.strength for one in landscape.effects.values()), reverse=True)
    assert strengths == [FALL**rank for rank in range(len(parameters))]
    assert set(landscape.effects) == {parameter.name for parameter in parameters}


def test_settings_that_are_absent_do_nothing() -> None:
    landscape = Landscape.draw(make_study().parameters, np.random.default_rng(0))
    noise = landscape.judge({}, np.random.default_rng(1))
    full = landscape.judge({COEFFICIENT: 0.3}, np.random.default_rng(1))
    assert full - noise == pytest.approx(landscape.effects[COEFFICIENT].judge(0.3))


def test_first_trials_are_those_that_the_study_begins_with(tmp_path: Path) -> None:
    study = make_study(start_with=[{COEFFICIENT: 0.25}])
    proposer = Proposer(study, tmp_path / "optuna.journal")
    real = [proposer.propose(number).spec for number in range(study.spec.sampler.startup_trials)]
    for number in range(2):
        drawn = draw_search(study, 1, 1, tmp_path, number)
        assert [trial.spec for trial in drawn[: len(real)]] == real
        assert drawn[0].spec.pruning.mixing.coefficient == 0.25
        assert len(drawn) == study.spec.num_trials


def test_a_round_is_drawn_again_alike_and_another_one_differs(tmp_path: Path) -> None:
    study = make_study(num_trials=12)
    (tmp_path / "again").mkdir()
    first = draw_search(study, 1, 2, tmp_path, 0)
    assert draw_search(study, 1, 2, tmp_path / "again", 0) == first
    other = draw_search(study, 1, 2, tmp_path, 1)
    assert [trial.quality for trial in other] != [trial.quality for trial in first]
    assert [trial.spec for trial in other] != [trial.spec for trial in first]


@pytest.mark.parametrize(("num_trials", "rounds"), [(1, 25), (48, 25), (100, 12), (5_000, 1)])
def test_large_studies_are_played_through_less_often(num_trials: int, rounds: int) -> None:
    assert count_rounds(num_trials) == rounds


def test_sampler_learns_and_a_random_one_does_not(tmp_path: Path) -> None:
    """By how much the last third of the trials is better than the first, in spreads of a trial."""

    def measure_gain(name: str) -> float:
        study = make_study(num_trials=30, sampler={"name": name})
        rounds = [draw_search(study, 1, 2, tmp_path, number) for number in range(8)]
        gains = [
            fmean(t.quality for t in trials[20:]) - fmean(t.quality for t in trials[:10])
            for trials in rounds
        ]
        return fmean(gains) / float(np.std([t.quality for trials in rounds for t in trials]))

    assert measure_gain("tpe") > 0.4
    assert abs(measure_gain("random")) < 0.3
