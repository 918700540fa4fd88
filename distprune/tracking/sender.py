"""A thread that does things in order, and again while the other side is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from queue import SimpleQueue

from distprune.core.credentials import hide_credentials

logger = logging.getLogger(__name__)

DELAYS_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before each further attempt; the last one repeats."""

MAX_REFUSALS = 3
"""Attempts at what fails for another reason than an outage."""

LAST_DELIVERY_S = 5.0
"""Longest wait for the delivery under way when its thread is stopped."""


@dataclass(frozen=True)
class Delivery:
    """Something to do.

    Attributes:
        action: May be called again after it has failed half-way.
        group: After a delivery was refused, the rest of its group is left; of None: everything is.
    """

    action: Callable[[], None]
    group: Hashable | None


class Sender:
    """Runs deliveries on a daemon thread, in order; `put` neither blocks nor raises.

    Args:
        destination: What the log calls the other side.
        is_outage: Says of an error whether the same delivery may succeed later.
        delays_s: Seconds before each further attempt; the last one repeats.
    """

    def __init__(
        self,
        destination: str,
        is_outage: Callable[[Exception], bool],
        delays_s: tuple[float, ...] = DELAYS_S,
    ) -> None:
        self._destination = destination
        self._is_outage = is_outage
        self._delays_s = delays_s
        self._queue: SimpleQueue[Delivery | None] = SimpleQueue()
        self._refused: set[Hashable | None] = set()
        self._stopped = threading.Event()
        self._woken = threading.Event()
        self._put = 0
        self._sent = 0
        self._thread = threading.Thread(target=self._run, name="distprune-tracking", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, action: Callable[[], None], group: Hashable | None = None) -> None:
        """Enqueue an action; see `Delivery`."""
        self._put += 1
        self._queue.put(Delivery(action, group))

    def finish(self, timeout_s: float) -> tuple[int, int]:
        """Wait until all is done, or nothing for so long, then stop the thread.

        Returns:
            Number of deliveries that were made, and that were not.
        """
        self._queue.put(None)
        self._woken.set()
        sent = -1
        while self._thread.is_alive() and self._sent > sent:
            sent = self._sent
            self._thread.join(timeout_s)
        sent = self._sent
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            # A thread that draws when the interpreter ends takes the process down with it.
            self._thread.join(LAST_DELIVERY_S)
        return sent, self._put - sent

    def _run(self) -> None:
        while (delivery := self._queue.get()) is not None and not self._stopped.is_set():
            if self._deliver(delivery):
                self._sent += 1

    def _deliver(self, delivery: Delivery) -> bool:
        if not self._refused.isdisjoint((delivery.group, None)):
            return False
        failures = 0
        while not self._stopped.is_set():
            try:
                delivery.action()
            except Exception as error:  # whatever happens here must not end a study
                failures += 1
                if not self._note_failure(delivery, error, failures):
                    return False
                self._wait(failures)
            else:
                if failures > 1:
                    logger.info("%s: answers again", self._destination)
                return True
        return False

    def _note_failure(self, delivery: Delivery, error: Exception, failures: int) -> bool:
        """Say once what is wrong; return whether to try again."""
        cause = hide_credentials(" ".join(str(error).split()))[:200] or type(error).__name__
        if self._is_outage(error):
            if failures == 2:
                logger.warning(
                    "%s: does not answer (%s); the study goes on, the rest is sent later",
                    *(self._destination, cause),
                )
            return True
        if failures < MAX_REFUSALS:
            return True
        self._refused.add(delivery.group)
        what = "everything" if delivery.group is None else f"the rest of {delivery.group}"
        logger.warning("%s: refuses %s (%s)", self._destination, what, cause)
        return False

    def _wait(self, failures: int) -> None:
        delay_s = self._delays_s[min(failures, len(self._delays_s)) - 1]
        if self._woken.wait(delay_s):
            self._woken.clear()
