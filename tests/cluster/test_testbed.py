"""The testbed itself, with bare hosts: what separates them, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.testbed import Plan, Testbed, TestbedError
from cluster.testbed.namespaces import find_nodes
from tests.cluster.conftest import PREFIX, ROOTS, check_machine, lend_testbed

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

BARE = Plan(hosts=2, ray=False, environment={"COLOUR": "green"})
COMMAND = Path(__file__).parents[2] / "cluster" / "testbed" / "testbed"

ANSWER = """
import socket
with socket.create_server(("0.0.0.0", 7000)) as server:
    while True:
        connection, _ = server.accept()
        connection.sendall(socket.gethostname().encode() + b"\\n")
        globals().setdefault("kept", []).append(connection)
"""
"""Answers with its host's name, and keeps every connection open."""

ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=float(sys.argv[2])) as connection:
    print(connection.makefile().readline().strip(), flush=True)
    if len(sys.argv) > 3:
        connection.settimeout(None)
        connection.recv(1)
"""
"""Prints an answer; with a third argument it goes on listening until the connection ends."""


@pytest.fixture(scope="module")
def bare() -> Iterator[Testbed]:
    with lend_testbed(BARE, "bare") as testbed:
        yield testbed


@pytest.fixture
def answering(bare: Testbed) -> Iterator[str]:
    """Address of h1, where a server answers."""
    server = bare.start("h1", ["python3", "-c", ANSWER])
    address = bare.plan.address("h1")
    wait_for(lambda: ask(bare, "h2", address) == "h1")
    yield address
    server.kill()


def ask(bed: Testbed, name: str, address: str, timeout_s: float = 1.0) -> str:
    return bed.run(name, ["python3", "-c", ASK, address, str(timeout_s)]).stdout.strip()


def wait_for(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def test_nodes_have_names_of_their_own(bare: Testbed) -> None:
    names = {name: bare.run(name, ["hostname"]).stdout.strip() for name in bare.plan.names}
    assert names == {"h1": "h1", "h2": "h2", "laptop": "laptop"}
    assert os.uname().nodename not in names


def test_nodes_share_one_folder_and_nothing_else(bare: Testbed) -> None:
    (bare.shared / "note").write_text("for all")
    for name in bare.hosts:
        script = f"cat {bare.shared}/note; echo {name} > /tmp/own; echo {name} > ~/own; ls /dev/shm"
        assert bare.run(name, ["sh", "-c", script]).stdout == "for all"
    for name in bare.hosts:
        assert bare.run(name, ["cat", "/tmp/own"]).stdout == f"{name}\n"
        assert bare.run(name, ["sh", "-c", "cat ~/own"]).stdout == f"{name}\n"
        assert (bare.folder.home(name) / "own").read_text() == f"{name}\n"
    assert not Path("/tmp/own").exists()


def test_node_sees_its_own_processes_only(bare: Testbed) -> None:
    sleeper = bare.start("h1", ["sleep", "1000"])
    try:
        wait_for(lambda: bool(bare.processes("h1", "sleep 1000")))
        assert [process.pid for process in bare.processes("h1", "sleep 1000")] == [sleeper.pid]
        assert bare.processes("h2", "sleep 1000") == []
        seen = bare.run("h2", ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).stdout
        assert "sleep 1000" not in seen
    finally:
        sleeper.kill()


def test_nodes_reach_each_other_by_address_and_by_name(bare: Testbed, answering: str) -> None:
    assert answering == "10.77.0.11"
    assert ask(bare, "h2", "h1") == "h1"
    assert ask(bare, "laptop", answering) == "h1"


def test_nothing_else_is_reached(bare: Testbed) -> None:
    routes = bare.run("h2", ["ip", "route"]).stdout
    assert routes.startswith("10.77.0.0/24 dev eth0")
    assert "default" not in routes


def test_cut_node_is_silent_and_comes_back(bare: Testbed, answering: str) -> None:
    with bare.cut_off("h1"):
        assert bare.status()["nodes"]["h1"]["state"] == "cut"
        assert ask(bare, "h2", answering) == ""
        assert ask(bare, "h1", answering) == "h1"  # its own processes go on
    wait_for(lambda: ask(bare, "h2", answering) == "h1")
    assert bare.status()["nodes"]["h1"]["state"] == "up"


def test_power_cut_tells_nobody(bare: Testbed, answering: str) -> None:
    listener = bare.start(
        "h2", ["python3", "-c", ASK, answering, "5", "stay"], stdout=subprocess.PIPE
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == b"h1\n"
    bare.run("h1", ["sh", "-c", "echo kept > ~/disk"])
    bare.kill("h1")
    assert bare.status()["nodes"]["h1"] == {"address": answering, "state": "down"}
    with pytest.raises(TestbedError, match="node h1: is down; run `testbed restart h1`"):
        bare.run("h1", ["true"])
    time.sleep(0.5)
    assert listener.poll() is None
    listener.kill()
    listener.stdout.close()
    bare.restart("h1")
    assert bare.run("h1", ["sh", "-c", "cat ~/disk"]).stdout == "kept\n"
    assert bare.processes("h1", "python3") == []


def test_preempted_node_gets_a_signal_first(bare: Testbed) -> None:
    script = "trap 'echo told > ~/last' TERM; echo > ~/set; while :; do sleep 0.05; done"
    process = bare.start("h2", ["sh", "-c", script])
    wait_for((bare.folder.home("h2") / "set").exists)
    bare.kill("h2", grace_s=0.5)
    assert (bare.folder.home("h2") / "last").read_text() == "told\n"
    assert process.wait(60.0) == -signal.SIGKILL
    bare.restart("h2", {"COLOUR": "red"})
    assert bare.run("h2", ["sh", "-c", "echo $COLOUR"]).stdout == "red\n"
    assert bare.run("h1", ["sh", "-c", "echo $COLOUR"]).stdout == "green\n"
    bare.restart("h2", {})


def test_exit_codes_and_signals_are_the_programs_own(bare: Testbed) -> None:
    done = bare.run("h1", ["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    for sign in (signal.SIGTERM, signal.SIGKILL):
        process = bare.start("h1", ["sleep", "1000"])
        process.send_signal(sign)
        assert process.wait(60.0) == -sign


def test_signal_to_the_command_reaches_the_program(bare: Testbed) -> None:
    script = "trap 'echo told; exit 5' INT; echo set; while :; do sleep 0.05; done"
    command = [*call(bare, "run", "h1", "--"), "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"set\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"told\n"
        assert process.wait(60.0) == 5


def test_program_dies_with_who_started_it(bare: Testbed) -> None:
    process = subprocess.Popen([*call(bare, "run", "h1", "--"), "sleep", "1234"])
    wait_for(lambda: bool(bare.processes("h1", "sleep 1234")))
    (program,) = bare.processes("h1", "sleep 1234")
    starter = Path(f"/proc/{program.pid}/status").read_text().split("PPid:\t")[1].split()[0]
    os.kill(int(starter), signal.SIGKILL)
    wait_for(lambda: not bare.processes("h1", "sleep 1234"))
    assert process.wait(60.0) == 128 + signal.SIGKILL


def test_program_without_parent_is_buried(bare: Testbed) -> None:
    bare.run("h1", ["sh", "-c", "setsid --fork sh -c 'sleep 0.2'"])
    time.sleep(0.3)
    show = ["sh", "-c", "grep -h State /proc/[0-9]*/status"]
    wait_for(lambda: "zombie" not in bare.run("h1", show).stdout)


def test_secrets_are_roots_alone(bare: Testbed) -> None:
    assert bare.folder.secrets.stat().st_mode & 0o777 == 0o600
    token = bare.environment("h1")["RAY_AUTH_TOKEN"]
    assert len(token) == 64
    found = [path for path in bare.folder.root.rglob("*") if path.is_file()]
    assert [path for path in found if token.encode() in path.read_bytes()] == [bare.folder.secrets]


def test_status_of_the_command(bare: Testbed) -> None:
    printed = subprocess.run(call(bare, "status", "--json"), stdout=subprocess.PIPE, check=True)
    assert json.loads(printed.stdout) == bare.status()
    refused = subprocess.run(call(bare, "cut", "h9"), capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr == "testbed: node: 'h9'; this testbed has h1, h2, laptop\n"


def test_second_one_in_a_folder_is_refused(bare: Testbed) -> None:
    with pytest.raises(TestbedError, match="is up, or has left files; run `testbed down`"):
        bare.up(BARE)
    assert bare.status()["nodes"]["h1"]["state"] == "up"


def test_two_beside_each_other_do_not_meet(bare: Testbed, answering: str) -> None:
    with lend_testbed(BARE, "other") as other:
        assert ask(other, "h2", answering) == ""
        assert ask(bare, "h2", answering) == "h1"


def test_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    check_machine(BARE)
    with pytest.raises(TestbedError, match="nodes do not see this machine's /tmp; name another"):
        Testbed("/tmp/somewhere").up(BARE)
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(TestbedError, match="holds what is no testbed's; name another"):
        Testbed(tmp_path).down()
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_machine_is_as_it_was(bare: Testbed) -> None:
    before = describe_machine()
    with lend_testbed(BARE, "passing") as passing:
        assert describe_machine() == before
        root = passing.folder.root
        process = passing.start("h1", ["sleep", "1000"])
        passing.kill("h2")
    assert process.wait(60.0) == -signal.SIGKILL
    assert describe_machine() == before
    assert not root.exists()
    assert find_nodes(root) == []


@pytest.mark.parametrize("num_nodes", [1, 3])
def test_crash_of_itself_leaves_what_down_removes(num_nodes: int) -> None:
    check_machine(BARE)
    before = describe_machine()
    testbed = Testbed(ROOTS / f"{PREFIX}{os.getpid()}-crashed")
    process = subprocess.Popen(call(testbed, "up", "--hosts", "3", "--no-ray"))
    try:
        wait_for(lambda: len(find_nodes(testbed.folder.root)) >= num_nodes)
    finally:
        process.kill()
        process.wait()
        testbed.down()
    assert find_nodes(testbed.folder.root) == []
    assert not testbed.folder.root.exists()
    assert describe_machine() == before


def test_interrupted_up_cleans_up_after_itself() -> None:
    check_machine(BARE)
    testbed = Testbed(ROOTS / f"{PREFIX}{os.getpid()}-interrupted")
    process = subprocess.Popen(call(testbed, "up", "--hosts", "3", "--no-ray"))
    wait_for(lambda: len(find_nodes(testbed.folder.root)) >= 2)
    process.terminate()
    assert process.wait(60.0) == 130
    assert find_nodes(testbed.folder.root) == []
    assert not testbed.folder.root.exists()


def call(testbed: Testbed, *arguments: str) -> list[str]:
    """Return the command line of the testbed's command."""
    return [sys.executable, str(COMMAND), "--root", str(testbed.folder.root), *arguments]


def describe_machine() -> list[Any]:
    """Return what a testbed could leave behind on this machine, but for files and processes."""
    shown = [
        subprocess.run(["ip", "-json", *what], stdout=subprocess.PIPE, check=True).stdout
        for what in (("address",), ("route",), ("netns",))
    ]
    addresses = [
        (link["ifname"], sorted(address["local"] for address in link["addr_info"]))
        for link in json.loads(shown[0])
    ]
    mounts = Path("/proc/self/mounts").read_text()
    return [addresses, *shown[1:], mounts, os.uname().nodename]
