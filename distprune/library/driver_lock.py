"""The lock of a study behind a URI: one driver, on whatever host.

A lock is a row of numbered objects, of which the last counts. Its holder alone writes it again, to
show that it lives. Who takes over from a driver that is dead or silent creates the next number,
which one of several succeeds in. Nobody removes or replaces what belongs to a living driver, and no
clocks are compared: who cannot tell that a driver is dead watches whether it shows life.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from distprune.errors import StorageError, StudyExistsError
from distprune.store.objects import Objects
from distprune.store.process import Process, current_process

logger = logging.getLogger(__name__)

BEAT_S = 15.0
"""How often a driver shows that it lives."""

SILENCE_S = 60.0
"""How long a driver of another host is watched before its lock is broken."""

POLL_S = 3.0
"""Seconds between two looks at a lock that is watched."""

TRUST_S = 30.0
"""How long a driver relies on having found its lock its own; less than `SILENCE_S`."""


@dataclass(frozen=True)
class Holder:
    """What an object of the lock says.

    Attributes:
        process: The driver.
        token: Tells this session from all others.
        beat: Grows as long as the driver lives.
        has_ended: The driver has let go of the study.
    """

    process: Process
    token: str
    beat: int = 0
    has_ended: bool = False

    def __str__(self) -> str:
        host = self.process.host.rpartition(".")[0] or self.process.host
        return f"process {self.process.pid} on {host}"

    def to_bytes(self) -> bytes:
        """Spell the holder as JSON."""
        return json.dumps({**asdict(self.process), **_without_process(self)}).encode()


class DriverLock:
    """The lock of one study.

    Args:
        storage: The objects of the storage.
        name: Name of the study.
    """

    def __init__(self, storage: Objects, name: str) -> None:
        self._objects = storage.below(f".{name}.lock")
        self._name = name
        self._number = 0
        self._own = Holder(current_process(), secrets.token_hex(8))
        self._confirmed = 0.0
        self._successor: Holder | None = None
        self._guard = threading.Lock()
        self._has_ended = threading.Event()
        self._thread: threading.Thread | None = None

    def find_holder(self) -> Holder | None:
        """Return the driver that holds the study, unless it certainly is dead."""
        _, holder = self._read_last()
        is_free = holder is None or holder.has_ended or holder.process.is_dead()
        return None if is_free else holder

    def take(self, tell: Callable[[str], None] = lambda text: None) -> None:
        """Take the lock, from a driver that died if need be, and keep it alive.

        Args:
            tell: Called with what it waits for.

        Raises:
            StudyExistsError: Another driver works on the study.
            StorageError: The storage cannot be written, or replaces what may only be created.
        """
        while True:
            number, holder = self._read_last()
            if holder is not None and not holder.has_ended:
                self._wait_for_end(holder, tell)
            self._number = number + 1
            if self._objects.create(_name_object(self._number), self._own.to_bytes()):
                break
        self._confirmed = _now()
        other = replace(self._own, token=secrets.token_hex(8))
        if self._objects.create(_name_object(self._number), other.to_bytes()):
            self._objects.remove(_name_object(self._number))
            raise StorageError(
                f"storage {self._objects.uri}: replaces objects that may only be created, so two "
                "drivers could destroy each other's study; use a server (and an s3fs) that knows "
                "conditional writes (If-None-Match), or a shared folder"
            )
        for name in self._objects.list_sizes():
            if name < _name_object(self._number):
                self._objects.remove(name)
        self._thread = threading.Thread(target=self._beat, name="driver-lock", daemon=True)
        self._thread.start()

    def check(self, trust_s: float = TRUST_S) -> None:
        """Make sure that the lock is ours still, as of `trust_s` seconds ago.

        Raises:
            StudyExistsError: Another driver has taken it over.
            StorageError: The storage does not answer.
        """
        with self._guard:
            if self._successor is None and _now() - self._confirmed >= trust_s:
                self._confirm()
            if self._successor is not None:
                raise StudyExistsError(
                    f"study {self._name!r}: this driver was silent for so long that "
                    f"{self._successor} has taken it over; this one ends, and has changed nothing "
                    "since"
                )

    def release(self) -> None:
        """Let go of the lock; never hides an error of the body."""
        self._has_ended.set()
        if self._thread is not None:
            self._thread.join()
        try:
            with self._guard:
                self._confirm()
                if self._successor is None:
                    ended = replace(self._own, has_ended=True)
                    self._objects.write(_name_object(self._number), ended.to_bytes())
        except StorageError as error:
            logger.warning(
                "study '%s': its lock cannot be released (%s); it will be broken after %g s",
                *(self._name, error, SILENCE_S),
            )

    def _beat(self) -> None:
        while not self._has_ended.wait(BEAT_S):
            try:
                self.check(trust_s=0.0)
            except StudyExistsError as error:
                logger.warning("%s", error)
                return
            except StorageError as error:
                logger.warning("study '%s': shows no life: %s", self._name, error)

    def _confirm(self) -> None:
        """Show that this driver lives, and see whether the lock still is its own."""
        begun = _now()
        self._own = replace(self._own, beat=self._own.beat + 1)
        self._objects.write(_name_object(self._number), self._own.to_bytes())
        number, holder = self._read_last()
        if number == self._number:
            self._confirmed = begun
        else:
            self._successor = holder

    def _wait_for_end(self, holder: Holder, tell: Callable[[str], None]) -> None:
        """Return once the holder has ended, is dead, or has been silent for long.

        Raises:
            StudyExistsError: It lives.
        """
        if holder.process.is_dead():
            logger.warning("study '%s': %s died; its lock is broken", self._name, holder)
            return
        if holder.process.is_elsewhere():
            tell(f"Watching for {SILENCE_S:g} s whether {holder} lives")
            end = time.monotonic() + SILENCE_S
            while time.monotonic() < end:
                time.sleep(POLL_S)
                _, now = self._read_last()
                if now is None or now.has_ended:
                    return
                if now != holder:
                    holder = now
                    break
            else:
                logger.warning(
                    "study '%s': %s has shown no life for %g s; its lock is broken",
                    *(self._name, holder, SILENCE_S),
                )
                return
        raise StudyExistsError(
            f"study {self._name!r}: {holder} is working on it; wait for it to end, or give this "
            "study another name"
        )

    def _read_last(self) -> tuple[int, Holder | None]:
        """Return the last number and what its object says; 0 and None where there is none."""
        names = self._objects.list_sizes()
        if not names:
            return 0, None
        last = max(names)
        data = self._objects.read(last)
        try:
            return int(last.removesuffix(".json")), _read_holder(data or b"")
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(
                f"lock {self._objects.uri}/{last}: cannot be read ({error}); remove it if no "
                "driver works on the study"
            ) from error


def _name_object(number: int) -> str:
    return f"{number:08d}.json"


def _without_process(holder: Holder) -> dict[str, Any]:
    return {"token": holder.token, "beat": holder.beat, "has_ended": holder.has_ended}


def _read_holder(data: bytes) -> Holder:
    values = json.loads(data)
    process = Process(str(values["host"]), int(values["pid"]), int(values["start"]))
    return Holder(process, str(values["token"]), int(values["beat"]), bool(values["has_ended"]))


def _now() -> float:
    """Tell the time since boot, the time asleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
