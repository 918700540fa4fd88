"""Which process owns a file of the store, and whether that process is certainly dead."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process, told apart from others that had or will have its number."""

    host: str
    """Host name and a digest of boot and process-number namespace: containers differ."""

    pid: int
    """Process number on that host."""

    start: int
    """Start in clock ticks since boot; 0 where the system does not tell."""

    def is_dead(self) -> bool:
        """Tell whether the process is certainly gone; False for processes of other hosts."""
        if self.host != _host():
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):  # no system has so large a number
            return True
        except PermissionError:
            pass
        state, start = _state_and_start(self.pid)
        is_zombie = state in ("Z", "X")
        is_another = 0 not in (start, self.start) and start != self.start
        return is_zombie or is_another

    def is_elsewhere(self) -> bool:
        """Tell whether it is of another host or container, so that nothing tells if it lives."""
        return self.host != _host()


def current_process() -> Process:
    """Identify this process."""
    pid = os.getpid()
    return Process(_host(), pid, _state_and_start(pid)[1])


@cache
def _host() -> str:
    name = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    facts = [
        boot.read_text() if boot.exists() else "",
        str(namespace.readlink()) if namespace.is_symlink() else "",
    ]
    return f"{name}.{hashlib.sha256(''.join(facts).encode()).hexdigest()[:8]}"


def _state_and_start(pid: int) -> tuple[str, int]:
    """Read state and start time; ("", 0) where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", 0
    fields = text.rpartition(")")[2].split()  # the command's name may hold spaces and brackets
    return fields[0], int(fields[19])
