"""Leases: at most one process of a store computes an entry at a time.

A lease is a file that names its owner; its modification time is the owner's heartbeat. All changes
of leases are made under one file lock, which the kernel drops when a process dies: so judging a
lease stale and replacing it is one step, and two waiters cannot both replace it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distprune.errors import StorageError
from distprune.store.failure import storage_failures
from distprune.store.location import LeaseTerms
from distprune.store.process import Process, current_process

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, as far as its file tells."""

    process: Process | None
    """The owner; None if the file cannot be read, as after a crash while it was written."""

    heartbeat: float
    """Last sign of life, seconds by the clock of the file system."""

    def is_gone(self, now: float, expiry_s: float) -> bool:
        """Tell whether the lease may be broken at a time of the same clock."""
        is_dead = self.process is not None and self.process.is_dead()
        return is_dead or now - self.heartbeat > expiry_s

    def __str__(self) -> str:
        if self.process is None:
            return "an unknown process"
        return f"process {self.process.pid} on {self.process.host}"


@contextmanager
def hold_lease(
    path: Path,
    guard: Path,
    terms: LeaseTerms,
    clear_after: Callable[[Process], None] = lambda _: None,
) -> Iterator[None]:
    """Hold a lease while the body runs; wait for it first.

    A lease whose owner is dead, or silent for longer than `terms.expiry_s`, is broken with a
    warning. An owner that was only stalled then works beside the new one: leases save work, they
    do not protect entries, which are committed atomically anyhow.

    Args:
        path: The lease file; its folder exists.
        guard: The file of the lock that protects all leases of the folder.
        terms: Timeout, poll interval and expiry.
        clear_after: Called with the owner of a lease that was broken, while the guard is locked.

    Raises:
        StorageError: The timeout passed, or the lease file cannot be written.
    """
    descriptor = _wait_for_lease(path, guard, terms, clear_after)
    try:
        with _heartbeat(descriptor, terms.expiry_s / 4):
            yield
    finally:
        _release(path, guard, descriptor)


@contextmanager
def exclusive(guard: Path) -> Iterator[int]:
    """Hold the lock of a guard file, for a few file operations only.

    Yields:
        The descriptor of the guard file.
    """
    descriptor = os.open(guard, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def is_held(path: Path, guard_descriptor: int, expiry_s: float) -> bool:
    """Tell whether a lease keeps others out; who holds the guard's lock can rely on it.

    Args:
        path: The lease file, whether it is there or not.
        guard_descriptor: What `exclusive` yields.
        expiry_s: Seconds of silence after which an owner counts as gone.
    """
    holder = _read_holder(path)
    return holder is not None and not holder.is_gone(_file_system_time(guard_descriptor), expiry_s)


def read_holders(paths: Iterable[Path]) -> list[Holder]:
    """Read who holds the leases that are there."""
    return [holder for path in paths if (holder := _read_holder(path)) is not None]


def _wait_for_lease(
    path: Path, guard: Path, terms: LeaseTerms, clear_after: Callable[[Process], None]
) -> int:
    start = time.monotonic()
    while True:
        with storage_failures(str(path.parent), "take a lease"):
            taken = _try_to_take(path, guard, terms.expiry_s, clear_after)
        if isinstance(taken, int):
            return taken
        waited_s = time.monotonic() - start
        if terms.timeout_s is not None and waited_s >= terms.timeout_s:
            raise StorageError(
                f"lease '{path}': held by {taken} for longer than the timeout of "
                f"{terms.timeout_s:g} s; wait for that process, stop it, or raise the timeout"
            )
        time.sleep(terms.poll_s)


def _try_to_take(
    path: Path, guard: Path, expiry_s: float, clear_after: Callable[[Process], None]
) -> int | Holder:
    """Create the lease and return its descriptor, or return who holds it."""
    with exclusive(guard) as guard_descriptor:
        holder = _read_holder(path)
        if holder is not None:
            if not holder.is_gone(_file_system_time(guard_descriptor), expiry_s):
                return holder
            logger.warning("lease '%s': %s is gone; the lease is broken", path, holder)
            path.unlink(missing_ok=True)
            if holder.process is not None:
                clear_after(holder.process)
        try:
            return _create(path)
        except FileExistsError:  # only where the lock does not reach other hosts
            return Holder(None, _file_system_time(guard_descriptor))


def _create(path: Path) -> int:
    process = current_process()
    owner = {
        "host": process.host,
        "pid": process.pid,
        "start": process.start,
        "token": secrets.token_hex(8),
    }
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(descriptor, json.dumps(owner).encode())
    except OSError:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def _read_holder(path: Path) -> Holder | None:
    try:
        # Opening asks a network file system for the present times; a plain stat may be cached.
        with path.open("rb") as stream:
            heartbeat = os.fstat(stream.fileno()).st_mtime
            data = stream.read()
    except FileNotFoundError:
        return None
    try:
        owner = json.loads(data)
        process = Process(str(owner["host"]), int(owner["pid"]), int(owner["start"]))
    except (ValueError, TypeError, KeyError):
        return Holder(None, heartbeat)
    return Holder(process, heartbeat)


def _file_system_time(descriptor: int) -> float:
    """Tell the time by the clock that sets heartbeats, which may be a file server's."""
    os.utime(descriptor)
    return os.fstat(descriptor).st_mtime


@contextmanager
def _heartbeat(descriptor: int, interval_s: float) -> Iterator[None]:
    """Touch the lease from a daemon thread while the body runs."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(interval_s):
            try:
                os.utime(descriptor)
            except OSError as error:
                logger.warning("a lease cannot be refreshed: %s", error)

    thread = threading.Thread(target=beat, name="lease-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _release(path: Path, guard: Path, descriptor: int) -> None:
    """Remove the lease unless it was broken; never hides an error of the body."""
    try:
        with exclusive(guard):
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                path.unlink()
            else:
                logger.warning("lease '%s' was broken while it was held", path)
    except OSError as error:
        logger.warning("lease '%s' cannot be released: %s; it will expire", path, error)
    finally:
        os.close(descriptor)
