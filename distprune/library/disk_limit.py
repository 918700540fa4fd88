"""The limit of a store's size, kept while a study runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from distprune.errors import DistpruneError
from distprune.library.eviction import enforce_limit
from distprune.library.history import Event, MilestoneReached, TrialEnded
from distprune.library.study_folder import StudyStorage
from distprune.store.store import Store

logger = logging.getLogger(__name__)

REST = 4.0
"""Rest after each look at the store, in units of the time that it took."""

FINISH_TIMEOUT_S = 60.0
"""How long the end of a study waits for the last look."""


class DiskLimit:
    """Evicts weights from a thread of its own as a study goes on, so nobody waits for it.

    Implements `distprune.search.study.StudyObserver`. What goes wrong is told and never raised.

    Args:
        store: The store.
        storage: Where the studies that use it are kept.
        max_bytes: How large it may be.
        warn: Called from the thread with one line, at most once for each thing that goes wrong.
    """

    def __init__(
        self, store: Store, storage: StudyStorage, max_bytes: int, warn: Callable[[str], None]
    ) -> None:
        self._store = store
        self._storage = storage
        self._max_bytes = max_bytes
        self._warn = warn
        self._told: set[str] = set()
        self._is_wanted = threading.Event()
        self._has_ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.num_evicted = 0
        self.bytes_evicted = 0

    def on_phase(self, text: str) -> None:
        """Nothing to limit."""

    def on_change(self, text: str) -> None:
        """Nothing to limit."""

    def on_start(self, start: object) -> None:
        """Bring the store within its limit before the trials begin."""
        self._request_now()

    def on_event(self, event: Event) -> None:
        """Look at the store after what can have made it grow, or weights superfluous."""
        if isinstance(event, MilestoneReached | TrialEnded):
            self._request_now()

    def _request_now(self) -> None:
        """Ask for a look, unless nothing can go: behind a URI all may be in use until the end."""
        if self._storage.uri is None:
            self.request()

    def request(self) -> None:
        """Ask for a look at the store; several requests at once are one."""
        self._is_wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="disk-limit", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Look at the store once more, and wait for it."""
        self._has_ended.set()
        self.request()
        if self._thread is not None:
            self._thread.join(FINISH_TIMEOUT_S)

    def _work(self) -> None:
        is_last = False
        while not is_last:
            self._is_wanted.wait()
            self._is_wanted.clear()
            is_last = self._has_ended.is_set()
            started = time.monotonic()
            self._enforce()
            self._has_ended.wait(REST * (time.monotonic() - started))

    def _enforce(self) -> None:
        try:
            done = enforce_limit(self._store, self._storage, self._max_bytes)
        except (DistpruneError, OSError) as error:
            self._tell("failure", f"the store's limit is not kept: {error}")
            return
        if done is None:
            return
        self.num_evicted += len(done.removed)
        self.bytes_evicted += sum(entry.num_bytes for entry in done.removed)
        excess = done.plan.explain_excess()
        if excess is not None:
            self._tell("excess", excess)

    def _tell(self, subject: str, text: str) -> None:
        logger.info("%s", text)
        if subject not in self._told:
            self._told.add(subject)
            self._warn(text)
