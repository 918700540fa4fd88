"""SIGTERM in a Ray worker: its stage may go on for a while, to be committed, then the process ends.

Machines that are preempted or shut down get this signal some time before they vanish. A stage that
does not end in that time ends at once: its entry is committed whole or not at all.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 20.0
"""How long a stage goes on. Kubernetes gives a pod 30 s by default, Google Cloud a machine too."""

REPLY_S = 1.0
"""How long the process stays, so that what the stage came to is told."""


class PreemptedError(Exception):
    """The worker was asked to end before the stage did; the stage has to run elsewhere."""


class Termination:
    """What this process was asked, and whether it is at work."""

    def __init__(self) -> None:
        self._is_asked = False
        self._is_busy = False

    @contextmanager
    def delay(self) -> Iterator[None]:
        """Let the body go on for a while after SIGTERM; the process ends after it.

        Signals reach the main thread only; in another one the body just runs.

        Raises:
            PreemptedError: The time is over, or the process had been asked before.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signal.signal(signal.SIGTERM, self._hear)
        self._check()
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False
            if self._is_asked:
                _start_timer(REPLY_S, _leave)

    def _check(self) -> None:
        if self._is_asked:
            raise PreemptedError("this worker is about to end")

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM; the second one, which the first one sends in time, ends the stage."""
        is_first, self._is_asked = not self._is_asked, True
        if not self._is_busy:
            # Python hears of signals only while it runs: a worker that waits, with its next stage.
            _start_timer(REPLY_S, _leave)
        elif is_first:
            _start_timer(GRACE_S, _ask_again)
        else:
            raise PreemptedError("the worker was asked to end before its stage did")


def _start_timer(seconds: float, act: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


def _ask_again() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _leave() -> None:
    os._exit(0)


TERMINATION = Termination()
"""That of this process."""
