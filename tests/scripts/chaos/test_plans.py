"""Plans: the same for the same seed, in order of time, every kind in turn."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.chaos.plans import LAST_MOMENT, LOCAL_KINDS, MAX_STRIKES, Kind, StudyKind, draw_plans

SEEDS = st.integers(0, 2**31)
KINDS = st.lists(st.sampled_from(Kind), min_size=1, unique=True)


@given(SEEDS, KINDS)
def test_more_rounds_begin_with_the_same_ones(seed: int, kinds: Sequence[Kind]) -> None:
    assert draw_plans(seed, 7, kinds)[:4] == draw_plans(seed, 4, kinds)


@given(SEEDS, KINDS)
def test_strikes_are_in_order_and_before_the_end(seed: int, kinds: Sequence[Kind]) -> None:
    for number, plan in enumerate(draw_plans(seed, 6, kinds)):
        moments = [strike.moment for strike in plan.strikes]
        assert plan.number == number
        assert moments == sorted(moments)
        assert 1 <= len(moments) <= MAX_STRIKES
        assert all(0.0 <= moment <= LAST_MOMENT < 1.0 for moment in moments)
        assert plan.has_server or Kind.TRACKING not in {strike.kind for strike in plan.strikes}


@given(SEEDS, KINDS)
def test_no_kind_comes_far_more_often_than_another(seed: int, kinds: Sequence[Kind]) -> None:
    plans = draw_plans(seed, 20, kinds)
    struck = [strike.kind for plan in plans for strike in plan.strikes]
    counts = [struck.count(kind) for kind in kinds]
    assert max(counts) - min(counts) <= 1
    assert set(struck) <= set(kinds)


def test_seeds_differ() -> None:
    assert draw_plans(0, 5, LOCAL_KINDS) != draw_plans(1, 5, LOCAL_KINDS)


@pytest.mark.parametrize("study", StudyKind)
def test_both_studies_take_turns(study: StudyKind) -> None:
    plans = draw_plans(0, 20, LOCAL_KINDS)
    assert sum(plan.study is study for plan in plans) == 10


def test_twenty_rounds_strike_everything_on_one_machine() -> None:
    struck = {strike.kind for plan in draw_plans(0, 20, LOCAL_KINDS) for strike in plan.strikes}
    assert struck == set(LOCAL_KINDS) == set(Kind) - {Kind.HOST, Kind.NETWORK}
