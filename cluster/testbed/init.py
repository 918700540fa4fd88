"""The first process of a node: mounts what the node has for itself, then waits for its end.

Called as `init.py FOLDER NAME` in new namespaces. It is process 1 there: when it dies, the kernel
kills everything on the node. It imports nothing of the testbed, since it must outlive its files.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

READY = "ready"
"""What it prints when the node can be used."""
SHARED_MEMORY = "1g"


def main() -> None:
    """Set the node up, say so, and bury the dead until the end."""
    root, name = Path(sys.argv[1]), sys.argv[2]
    set_up(root, name)
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    bury_the_dead()


def set_up(root: Path, name: str) -> None:
    """Give the node its name, loopback, /tmp, /dev/shm and /etc/hosts."""
    socket.sethostname(name)
    call("ip", "link", "set", "lo", "up")
    own = root / "nodes" / name
    call("mount", "--bind", str(own / "tmp"), "/tmp")
    call("mount", "-t", "tmpfs", "-o", f"size={SHARED_MEMORY},mode=1777", "tmpfs", "/dev/shm")
    if Path("/etc/hosts").exists():
        call("mount", "--bind", str(root / "hosts"), "/etc/hosts")


def call(*command: str) -> None:
    """Run a program; without it there is no node."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def bury_the_dead() -> None:
    """Take the exit status of every process that nobody else waits for."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, 5.0)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


if __name__ == "__main__":
    main()
