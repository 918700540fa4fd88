"""Order, patience and refusal of the sender, without MLflow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from distprune.tracking.sender import MAX_REFUSALS, Sender


def make_sender(delay_s: float = 0.001) -> Sender:
    sender = Sender("somewhere", lambda error: isinstance(error, ConnectionError), (delay_s,))
    sender.start()
    return sender


def fail_first(times: int, done: list[str], name: str) -> Callable[[], None]:
    """Return an action that fails so many times and then notes its name."""
    left = [times]

    def act() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise ConnectionError("away")
        done.append(name)

    return act


def test_order_is_kept_through_an_outage() -> None:
    done: list[str] = []
    sender = make_sender()
    for name in "abc":
        sender.put(fail_first(3, done, name), "group")
    assert sender.finish(10) == (3, 0)
    assert done == ["a", "b", "c"]


def test_an_outage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    sender = make_sender()
    with caplog.at_level(logging.INFO):
        sender.put(fail_first(20, [], "a"))
        sender.finish(10)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_one_lost_request_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    sender = make_sender()
    sender.put(fail_first(1, [], "a"))
    assert sender.finish(10) == (1, 0)
    assert caplog.records == []


def test_refusal_ends_a_group_only(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    attempts: list[int] = []

    def refuse() -> None:
        attempts.append(1)
        raise ValueError("no")

    sender = make_sender()
    sender.put(refuse, "first")
    sender.put(lambda: done.append("first"), "first")
    sender.put(lambda: done.append("second"), "second")
    assert sender.finish(10) == (1, 2)
    assert done == ["second"]
    assert len(attempts) == MAX_REFUSALS
    assert "somewhere: refuses the rest of first (no)" in caplog.text


def test_refusal_without_group_ends_everything(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    sender = make_sender()
    sender.put(lambda: [][1])
    sender.put(lambda: done.append("first"), "first")
    assert sender.finish(10) == (0, 2)
    assert done == []
    assert "refuses everything" in caplog.text


def test_finish_gives_up_after_its_time() -> None:
    sender = make_sender(delay_s=60.0)
    sender.put(fail_first(10**9, [], "a"))
    began = time.monotonic()
    assert sender.finish(0.2) == (0, 1)
    assert time.monotonic() - began < 5


def test_finish_tries_again_at_once() -> None:
    done: list[str] = []
    sender = make_sender(delay_s=60.0)
    sender.put(fail_first(1, done, "a"))
    time.sleep(0.1)
    assert sender.finish(10) == (1, 0)
    assert done == ["a"]


def test_finish_waits_for_a_slow_server_as_long_as_it_takes_something() -> None:
    sender = make_sender()
    for _ in range(5):
        sender.put(lambda: time.sleep(0.2))
    assert sender.finish(0.5) == (5, 0)


def test_delivery_under_way_ends_before_finish_does() -> None:
    begun, ended = threading.Event(), threading.Event()

    def draw() -> None:
        begun.set()
        time.sleep(0.5)
        ended.set()

    sender = make_sender()
    sender.put(draw)
    assert begun.wait(10)
    assert sender.finish(0.1) == (0, 1)
    assert ended.is_set()
