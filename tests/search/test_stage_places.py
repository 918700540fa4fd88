"""Whoever waits for a stage hears of the loss of its node, and of no other."""

from __future__ import annotations

import asyncio

import pytest

from distprune.search.stage_broker import _await_unless
from distprune.search.stage_places import LostNodeError, StagePlaces

BOTH, ONE = frozenset("ab"), frozenset("a")


def make_places() -> StagePlaces:
    places = StagePlaces()
    places.look(BOTH)
    return places


def test_loss_of_its_own_node_is_told() -> None:
    places = make_places()
    with places.follow("x") as of_x, places.follow("y") as of_y:
        places.note("x", "a")
        places.note("y", "b")
        places.look(BOTH)
        assert not of_y.is_set()
        places.look(ONE)
        assert of_y.is_set()
        assert not of_x.is_set()


def test_stage_that_has_not_begun_may_be_on_its_way_to_a_lost_node() -> None:
    places = make_places()
    with places.follow("x") as loss:
        places.look(BOTH | {"c"})
        assert not loss.is_set()
        places.look(ONE)
        assert loss.is_set()


def test_loss_before_it_was_started_is_none() -> None:
    places = make_places()
    places.look(ONE)
    with places.follow("x") as loss:
        places.look(ONE)
        assert not loss.is_set()


def test_late_note_of_a_run_that_nobody_follows_is_dropped() -> None:
    places = make_places()
    with places.follow("x"):
        pass
    places.note("x", "b")
    places.look(ONE)
    assert not places._runs


async def answer_after(seconds: float, value: bool) -> bool:
    await asyncio.sleep(seconds)
    return value


def test_answer_that_comes_is_the_answer() -> None:
    async def ask() -> bool:
        return await _await_unless(asyncio.Event(), answer_after(0.0, True))

    assert asyncio.run(ask())


def test_nobody_waits_for_the_answer_of_a_lost_node() -> None:
    async def ask() -> bool:
        loss = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, loss.set)
        return await asyncio.wait_for(_await_unless(loss, answer_after(600.0, True)), 10.0)

    with pytest.raises(LostNodeError):
        asyncio.run(ask())
