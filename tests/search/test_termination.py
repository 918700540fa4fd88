"""SIGTERM: a stage that is nearly done is finished, another ends, and the process goes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from distprune.search.termination import PreemptedError, Termination

PROGRAM = """
import signal, sys, time
from pathlib import Path
from distprune.search import termination
from distprune.search.termination import TERMINATION, PreemptedError
termination.GRACE_S, termination.REPLY_S = float(sys.argv[3]), 0.3
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
try:
    with TERMINATION.delay():
        (folder / "begun").touch()
        time.sleep(seconds)
        (folder / "done").touch()
except PreemptedError as error:
    (folder / "preempted").write_text(str(error))
try:
    with TERMINATION.delay():
        (folder / "second").touch()
except PreemptedError:
    (folder / "refused").touch()
time.sleep(30)
"""


def run_stage(folder: Path, seconds: float, grace_s: float, num_signals: int = 1) -> float:
    """Send SIGTERM to a process in a stage of some seconds; return how long it then lived."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(seconds), str(grace_s)]
    )
    while not (folder / "begun").exists():
        assert process.poll() is None
        time.sleep(0.02)
    started = time.monotonic()
    for _ in range(num_signals):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # two that come before the first is heard are one
    assert process.wait(20) == 0
    return time.monotonic() - started


def list_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_stage_that_is_nearly_done_is_finished(tmp_path: Path) -> None:
    lived_s = run_stage(tmp_path, seconds=1.0, grace_s=15.0)
    assert list_files(tmp_path) == {"begun", "done", "refused"}
    assert lived_s < 5.0


def test_stage_that_takes_too_long_ends(tmp_path: Path) -> None:
    lived_s = run_stage(tmp_path, seconds=25.0, grace_s=0.5)
    assert list_files(tmp_path) == {"begun", "preempted", "refused"}
    assert lived_s < 5.0


def test_second_signal_ends_a_stage_at_once(tmp_path: Path) -> None:
    lived_s = run_stage(tmp_path, seconds=25.0, grace_s=15.0, num_signals=2)
    assert list_files(tmp_path) == {"begun", "preempted", "refused"}
    assert lived_s < 5.0


def test_other_threads_just_run() -> None:
    done = []

    def work() -> None:
        with Termination().delay():
            done.append(True)

    before = signal.getsignal(signal.SIGTERM)
    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_process_that_was_asked_takes_no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []
    monkeypatch.setattr(
        "distprune.search.termination._start_timer", lambda seconds, act: left.append(seconds)
    )
    before = signal.getsignal(signal.SIGTERM)
    termination = Termination()
    try:
        with termination.delay():
            pass
        assert left == []
        termination._hear(signal.SIGTERM, None)
        assert len(left) == 1
        with pytest.raises(PreemptedError), termination.delay():
            pytest.fail("a stage began")
    finally:
        signal.signal(signal.SIGTERM, before)
