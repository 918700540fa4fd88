"""What died about when a node was lost died of that."""

from __future__ import annotations

import pytest

from distprune.search.node_losses import WINDOW_S, NodeLosses


def lose_one(when: float) -> NodeLosses:
    losses = NodeLosses()
    losses.look(frozenset("ab"), when - 1)
    losses.look(frozenset("b"), when)
    return losses


@pytest.mark.parametrize(
    ("delay", "is_explained"),
    [(0.0, True), (-WINDOW_S, True), (WINDOW_S, True), (-WINDOW_S - 1, False), (1e4, False)],
)
def test_death_is_explained_by_a_loss_about_then(delay: float, is_explained: bool) -> None:
    assert lose_one(1000.0).explains(1000.0 + delay) is is_explained


def test_nodes_that_stay_and_nodes_that_come_explain_nothing() -> None:
    losses = NodeLosses()
    for step, living in enumerate(["a", "a", "abc", "abc"]):
        losses.look(frozenset(living), float(step))
    assert not any(losses.explains(float(when)) for when in range(-5, 10))


def test_node_that_comes_in_the_place_of_another_does_not_hide_the_loss() -> None:
    losses = NodeLosses()
    losses.look(frozenset("ab"), 0.0)
    losses.look(frozenset("bc"), 1.0)
    assert losses.explains(1.0)
