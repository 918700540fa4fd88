"""The rule of stopping is that of the paper, and of the study."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distprune.search.stopping_rule import make_rule
from tests.search.successive_halving import SuccessiveHalving
from tests.search.synthetic import make_study

MILESTONES = [0.1, 0.2, 0.3, 0.4, 0.6]
ORDERS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12, unique=True)


@given(ORDERS, st.integers(2, 3), st.integers(1, 2), st.integers(1, 3))
def test_rule_is_that_of_the_paper(
    qualities: list[float], factor: int, grace: int, comparable: int
) -> None:
    """One trial after the other, each as far as it may go."""
    stopping = {"reduction_factor": factor, "grace_milestones": grace}
    study = make_study(milestones=MILESTONES, stopping=stopping)
    goes_on = make_rule(study, comparable, qualities)
    halving = SuccessiveHalving(factor, max(grace, comparable), len(MILESTONES))
    for number, quality in enumerate(qualities):
        for milestone in range(1, len(MILESTONES) + 1):
            decision = goes_on(number, milestone)
            assert decision == halving.goes_on(milestone, quality)
            if not decision:
                break


def test_without_stopping_all_go_on() -> None:
    goes_on = make_rule(make_study(stopping=None), 1, [0.0, 1.0])
    assert all(goes_on(number, milestone) for number in range(2) for milestone in range(1, 3))
