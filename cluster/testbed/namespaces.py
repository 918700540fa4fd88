"""Nodes as sets of Linux namespaces, each held open by a process of its own.

Nothing is in the machine's own network: the switch is a bridge in a namespace too, and a cable is a
veth pair from there into a node. So whatever is left of a testbed ends when its holders are killed,
and holders are found by their command line, whatever has become of whoever started them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.testbed.errors import TestbedError
from cluster.testbed.init import READY
from cluster.testbed.plan import PREFIX_LENGTH, SWITCH, Folder
from cluster.testbed.processes import find_alive, list_pids, read_arguments, read_status

BRIDGE = "bridge0"
INTERFACE = "eth0"
INIT = Path(__file__).with_name("init.py").resolve()
UNSHARE = ("unshare", "--net", "--uts", "--ipc", "--pid", "--mount", "--mount-proc", "--fork")
END_LIMIT_S = 60.0

_CALL_LIMIT_S = 60.0


@dataclass(frozen=True)
class Node:
    """One machine of the testbed: a host, a server, the laptop or the switch.

    Attributes:
        folder: The testbed's folder.
        name: Name of the node.
    """

    folder: Folder
    name: str

    def boot(self) -> None:
        """Make the node's namespaces.

        Raises:
            TestbedError: The machine does not let us.
        """
        for path in (self.folder.home(self.name), self.folder.temporary(self.name)):
            path.mkdir(parents=True, exist_ok=True)
        self.folder.temporary(self.name).chmod(0o1777)
        with self.folder.log(self.name).open("ab") as log:
            holder = subprocess.Popen(
                [
                    *("setsid", "--fork", *UNSHARE, "--kill-child"),
                    *(sys.executable, "-I", str(INIT), str(self.folder.root), self.name),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
            )
        assert holder.stdout is not None
        with holder.stdout:
            line = holder.stdout.readline().decode().strip()
        holder.wait()
        if line != READY:
            raise TestbedError(f"node {self.name}: did not start ({self.folder.tail(self.name)})")

    def find_init(self) -> int | None:
        """Return the node's first process; None = the node is down."""
        for pid in self._find_holders():
            if read_status(pid, "NSpid").split()[1:]:
                return pid
        return None

    def require_init(self) -> int:
        """Return the node's first process.

        Raises:
            TestbedError: The node is down.
        """
        pid = self.find_init()
        if pid is None:
            raise TestbedError(f"node {self.name}: is down; run `testbed restart {self.name}`")
        return pid

    def power_off(self) -> None:
        """Kill every process of the node at once.

        Raises:
            TestbedError: Some of them do not end.
        """
        holders = self._find_holders()
        for pid in holders:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not find_alive(holders), f"node {self.name}: cannot be killed")

    def enter(self, command: Sequence[str], cwd: Path | str = "/") -> list[str]:
        """Return the command line that runs a command on the node.

        The command dies with the process that runs this line, and gets its exit status.
        """
        return [
            *("nsenter", "--target", str(self.require_init())),
            *("--net", "--uts", "--ipc", "--pid", "--mount", "--"),
            *("env", "-C", str(cwd), "setpriv", "--pdeathsig", "KILL", "--", *command),
        ]

    def call(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = _CALL_LIMIT_S,
    ) -> str:
        """Run a program of the testbed's own on the node, and return what it prints.

        Raises:
            TestbedError: It fails, or takes longer than `timeout_s`.
        """
        return call(self.enter(command), environment, timeout_s, shown=f"{self.name}: {command[0]}")

    def start_daemon(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a server that belongs to the node; what it prints goes to the node's log."""
        with self.folder.log(self.name).open("ab") as log:
            subprocess.run(
                self.enter(["setsid", "--fork", *command]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                check=True,
            )

    def _find_holders(self) -> list[int]:
        return [pid for pid, owner in find_holders() if owner == (self.folder.root, self.name)]


@dataclass(frozen=True)
class Network:
    """The switch and the cables that go from it; a cable is named after its node."""

    switch: Node

    @classmethod
    def of(cls, folder: Folder) -> Network:
        """Return the network of a testbed."""
        return cls(Node(folder, SWITCH))

    def make(self) -> None:
        """Start the switch."""
        self.switch.boot()
        self._ip("link", "add", BRIDGE, "type", "bridge")
        self._ip("link", "set", BRIDGE, "up")

    def connect(self, node: Node, address: str) -> None:
        """Lay a cable to a node that has none, and give the node its address."""
        peer = ("type", "veth", "peer", "name", INTERFACE, "netns", str(node.require_init()))
        self._ip("link", "add", node.name, *peer)
        node.call("ip", "address", "add", f"{address}/{PREFIX_LENGTH}", "dev", INTERFACE)
        node.call("ip", "link", "set", INTERFACE, "up")
        self._ip("link", "set", node.name, "master", BRIDGE, "up")

    def cut(self, name: str) -> None:
        """Let no packet through to or from a node; nobody is told."""
        self._ip("link", "set", name, "nomaster")

    def heal(self, name: str) -> None:
        """Let packets through again."""
        self._ip("link", "set", name, "master", BRIDGE)

    def remove(self, name: str) -> None:
        """Take away the cable of a node that is down; the kernel may have been faster."""
        if name in self._list_cables():
            with suppress(TestbedError):
                self._ip("link", "delete", name)
            wait_until(lambda: name not in self._list_cables(), f"node {name}: cable stays")

    def list_connected(self) -> set[str]:
        """Return the nodes whose cables are plugged in."""
        return {name for name, link in self._list_cables().items() if link.get("master") == BRIDGE}

    def _list_cables(self) -> dict[str, dict[str, object]]:
        links = json.loads(self._ip("-json", "link", "show", "type", "veth") or "[]")
        return {link["ifname"]: link for link in links if link}

    def _ip(self, *arguments: str) -> str:
        # Not into the switch's process namespace: nodes are named by the process ids of this one.
        pid = str(self.switch.require_init())
        return call(["nsenter", "--target", pid, "--net", "--", "ip", *arguments])


def call(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    timeout_s: float = _CALL_LIMIT_S,
    shown: str = "",
) -> str:
    """Run a program, and return what it prints; in messages it is called `shown`.

    Raises:
        TestbedError: It fails, or takes longer than `timeout_s`.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise TestbedError(f"{shown or command[0]}: no end within {timeout_s:g} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-600:]
        raise TestbedError(f"{shown or ' '.join(command)}: exit code {done.returncode} ({said})")
    return done.stdout


def find_holders() -> list[tuple[int, tuple[Path, str]]]:
    """Return the processes that hold nodes, each with its testbed's folder and the node's name.

    A checkout may be gone, or another than the one that has started them: only the end of the
    path of `init.py` counts.
    """
    found = []
    for pid in list_pids():
        arguments = read_arguments(pid)
        if len(arguments) > 3 and Path(arguments[-3]).parts[-2:] == INIT.parts[-2:]:
            found.append((pid, (Path(arguments[-2]), arguments[-1])))
    return found


def find_nodes(root: Path) -> list[str]:
    """Return the names of all nodes that are held for a testbed, the switch included."""
    return sorted({name for _, (owner, name) in find_holders() if owner == root})


def wait_until(condition: Callable[[], bool], problem: str, limit_s: float = END_LIMIT_S) -> None:
    """Wait for a condition.

    Raises:
        TestbedError: It does not come true in time; the message is `problem`.
    """
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TestbedError(f"{problem} within {limit_s:g} s")
        time.sleep(0.02)
