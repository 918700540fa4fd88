"""A tracking store that is away, slow, flaky or refuses; the study must not notice."""

from __future__ import annotations

import logging
import threading
import time
from random import Random
from typing import Any

import pytest

from distprune.tracking import naming, tracker
from distprune.tracking.client import open_client
from distprune.tracking.sender import LAST_DELIVERY_S
from tests.tracking.conftest import Tracked, strip
from tests.tracking.events import run_trial

pytestmark = pytest.mark.xdist_group("mlflow")


class Absent:
    """A client whose first calls fail, each in turn; the rest reach the database."""

    def __init__(self, uri: str, failures: int) -> None:
        self.client = open_client(uri)
        self.failures = failures

    def __getattr__(self, name: str) -> Any:
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("nobody listens at http://user:secret@host")
        return getattr(self.client, name)


def test_outage_is_survived_and_told_once(
    study: Tracked,
    history: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tracker, "open_client", lambda uri: Absent(uri, failures=7))
    with caplog.at_level(logging.INFO, "distprune"):
        assert study.track([*run_trial()]).unsent == 0
    messages = [record.getMessage() for record in caplog.records if "tracking" in record.name]
    assert len(messages) == 2
    assert "does not answer (nobody listens" in messages[0]
    assert "answers again" in messages[1]
    assert "secret" not in caplog.text
    assert len(history("retention")) == 2


def test_lost_answers_leave_no_trace(study: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    class Flaky:
        """Does what it is asked and then fails, two times of five."""

        def __init__(self, uri: str) -> None:
            self.client = open_client(uri)
            self.chance = Random(0)

        def __getattr__(self, name: str) -> Any:
            def call(*arguments: Any, **named: Any) -> Any:
                result = getattr(self.client, name)(*arguments, **named)
                if self.chance.random() < 0.4:
                    raise ConnectionError("the answer was lost")
                return result

            return call

    study.track([*run_trial()])
    before = [strip(run) for run in study.photograph()]
    monkeypatch.setattr(tracker, "open_client", Flaky)
    flaky = Tracked(study.uri, f"{study.name}-flaky", study.folder)
    assert flaky.track([*run_trial()]).unsent == 0
    assert [strip(run) for run in flaky.photograph()] == before


def test_what_an_outage_left_is_sent_by_the_next_process(
    study: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [*run_trial()]
    with monkeypatch.context() as patch:
        patch.setattr(tracker, "open_client", lambda uri: Absent(uri, failures=10**9))
        summary = study.track(events, timeout_s=0.3)
    assert (summary.sent, summary.unsent) == (0, len(events) + 2)
    assert study.find(naming.KIND_TRIAL) == []
    assert study.track(events).unsent == 0
    assert len(study.find(naming.KIND_TRIAL)) == 1


def test_notice_does_not_wait_for_the_server(
    study: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def open_slowly(uri: str) -> Any:
        released.wait(30)
        return open_client(uri)

    monkeypatch.setattr(tracker, "open_client", open_slowly)
    began = time.monotonic()
    summary = study.track([*run_trial()] * 20, timeout_s=0.1)
    released.set()
    assert time.monotonic() - began < 5 + LAST_DELIVERY_S
    assert summary.sent == 0


def test_refused_trial_does_not_hold_up_the_others(
    study: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    first, *rest = run_trial(0)
    spec = {**first.spec, "checkpoint": ""}
    broken = type(first)(**{**vars(first), "spec": spec})
    summary = study.track([broken, *rest, *run_trial(1)])
    assert summary.unsent == 4
    assert caplog.text.count("refuses the rest of trial-000") == 1
    assert study.find(naming.KIND_TRIAL)[-1].data.tags[naming.OUTCOME] == "completed"


def test_finish_without_start(uri: str) -> None:
    unused = tracker.Tracker(uri, None, "never", "id7", "accuracy", None)
    assert unused.finish((), {}, timeout_s=5.0).unsent == 1
