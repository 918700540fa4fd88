"""Processes of a session are found by mark, session and parent, whatever they call themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from random import Random

import pytest

from scripts.benchmark.processes import MARK
from scripts.chaos.plans import Kind
from scripts.chaos.processes import Process, find_marked, kill, read_process
from scripts.chaos.rounds import STAGE_PATIENCE_S, kill_one

CHILD = "import os, sys, subprocess; p = subprocess.Popen(['sleep', '60'], env={}); p.wait()"


@pytest.fixture
def session() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A process with a mark, and a child that has lost the mark."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD], env=os.environ | {MARK: mark}, start_new_session=True
    )
    try:
        yield mark, process
    finally:
        for one in find_marked(mark, [process.pid]):
            kill(one.pid)
        process.wait()


def wait_for_titles(mark: str, leaders: list[int], number: int) -> list[str]:
    end = time.monotonic() + 20.0
    while True:
        titles = [one.title for one in find_marked(mark, leaders)]
        if len(titles) == number or time.monotonic() > end:
            return titles
        time.sleep(0.05)


def test_children_without_the_mark_are_found(
    session: tuple[str, subprocess.Popen[bytes]],
) -> None:
    mark, process = session
    titles = wait_for_titles(mark, [], 2)
    assert titles[1:] == ["sleep 60"]
    assert find_marked("nobody has this mark") == []
    # Its parent dies: what tells now is the session that the parent led.
    kill(process.pid)
    process.wait()
    assert wait_for_titles(mark, [process.pid], 1) == ["sleep 60"]


def test_the_dead_are_no_processes() -> None:
    process = subprocess.Popen(["true"])
    while read_process(process.pid) is not None:
        time.sleep(0.01)
    process.wait()
    assert read_process(process.pid) is None
    kill(process.pid)


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("ray::retrain 1a2b3c4d", Kind.STAGE),
        ("ray::ImplicitFunc.train", Kind.TRIAL),
        ("ray::StageBroker.ensure", Kind.BROKER),
        ("/venv/ray/core/src/ray/raylet/raylet --raylet_socket_name=/tmp/x", Kind.RAYLET),
        ("ray::IDLE", None),
        ("ray::DashboardAgent", None),
        ("python distprune search study.yaml", None),
    ],
)
def test_titles(title: str, kind: Kind | None) -> None:
    process = Process(1, 0, 0, title)
    wanted = (Kind.STAGE, Kind.TRIAL, Kind.BROKER, Kind.RAYLET)
    assert [one for one in wanted if process.is_a(one)] == ([kind] if kind else [])


def test_an_idle_worker_will_do_after_a_while() -> None:
    process = subprocess.Popen(["sleep", "60"])
    idle = [Process(process.pid, 0, 0, "ray::IDLE")]
    assert kill_one(Kind.STAGE, idle, Random(0), 0.0) is None
    assert kill_one(Kind.TRIAL, idle, Random(0), 2 * STAGE_PATIENCE_S) is None
    assert process.poll() is None
    hit = kill_one(Kind.STAGE, idle, Random(0), 2 * STAGE_PATIENCE_S)
    assert hit is not None
    assert hit.words == "IDLE"
    assert not hit.ends_driver
    assert process.wait() < 0
