"""The command line of the testbed."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.testbed.control import Testbed
from cluster.testbed.errors import TestbedError
from cluster.testbed.plan import DEFAULT_ROOT, ROOT_VARIABLE, Plan

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What is passed on to the program of `testbed run`."""


def main() -> None:
    """Carry out one command; problems are one line and exit code 1."""
    arguments = make_parser().parse_args()
    testbed = Testbed(arguments.root)
    try:
        sys.exit(arguments.carry_out(testbed, arguments))
    except TestbedError as error:
        sys.exit(f"testbed: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def make_parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    parser = argparse.ArgumentParser(
        prog="testbed", description="Several Ray hosts on one machine, to be disturbed."
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=DEFAULT_ROOT,
        help=f"folder of the testbed (default: {DEFAULT_ROOT}, or ${ROOT_VARIABLE})",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, carry_out: Callable[..., int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(carry_out=carry_out)
        return command

    _describe_up(add("up", bring_up, "bring a testbed up"))
    down = add("down", take_down, "take it down, also what a crash has left")
    down.add_argument("--keep-files", action="store_true", help="leave logs and the shared folder")
    kill = add("kill", kill_node, "cut a node's power")
    kill.add_argument("node")
    kill.add_argument("--grace", type=float, default=0.0, help="seconds after a SIGTERM to all")
    restart = add("restart", restart_node, "boot a node; a host joins the cluster again")
    restart.add_argument("node")
    restart.add_argument("--env", action="append", metavar="NAME=VALUE", help="only for this node")
    cut = add("cut", cut_node, "cut a node off the network")
    cut.add_argument("node")
    cut.add_argument("--seconds", type=float, help="wait so long, then heal it")
    add("heal", heal_node, "let packets through to a node again").add_argument("node")
    add("status", show_status, "show the nodes").add_argument("--json", action="store_true")
    run = add("run", run_program, "run a program on a node: run NODE -- COMMAND")
    run.add_argument("node")
    run.add_argument("program", nargs=argparse.REMAINDER)
    env = add("env", show_environment, "print a node's variables, secrets too, for a shell")
    env.add_argument("node")
    return parser


def _describe_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("--hosts", type=int, default=3, help="Ray hosts (default: 3)")
    up.add_argument("--cpus", type=int, default=1, help="cores of each for Ray (default: 1)")
    up.add_argument("--memory-mib", type=int, default=4096, help="memory of each for Ray")
    up.add_argument("--no-ray", action="store_true", help="bare hosts")
    up.add_argument("--dashboard", action="store_true", help="Ray's dashboard, which takes jobs")
    up.add_argument("--mlflow", action="store_true", help="MLflow on PostgreSQL, node `tracking`")
    up.add_argument("--s3", action="store_true", help="S3 by moto, node `s3`")
    up.add_argument("--env", action="append", metavar="NAME=VALUE", help="for all nodes")


def bring_up(testbed: Testbed, arguments: argparse.Namespace) -> int:
    """Bring a testbed up, and show it."""
    plan = Plan(
        hosts=arguments.hosts,
        cpus=arguments.cpus,
        memory_mib=arguments.memory_mib,
        ray=not arguments.no_ray,
        dashboard=arguments.dashboard,
        tracking=arguments.mlflow,
        s3=arguments.s3,
        environment=parse_variables(arguments.env),
    )
    # A testbed that nobody waits for is taken down again, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    testbed.up(plan)
    say(f"up in {time.monotonic() - start:.1f} s")
    say(format_status(testbed))
    return 0


def take_down(testbed: Testbed, arguments: argparse.Namespace) -> int:
    """Take the testbed down."""
    testbed.down(keep_files=arguments.keep_files)
    if arguments.keep_files:
        say(f"its files are in {testbed.folder.root}; `testbed down` removes them")
    return 0


def kill_node(testbed: Testbed, arguments: argparse.Namespace) -> int:
    """Cut a node's power."""
    testbed.kill(arguments.node, arguments.grace)
    return 0


def restart_node(testbed: Testbed, arguments: argparse.Namespace) -> int:
    """Boot a node."""
    environment = None if arguments.env is None else parse_variables(arguments.env)
    testbed.restart(arguments.node, environment)
    return 0


def cut_node(testbed: Testbed, arguments: argparse.Namespace) -> int:
    """Cut a node off, for a while or until it is healed."""
    if arguments.seconds is None:
        testbed.cut(arguments.node)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with testbed.cut_off(arguments.node):
        time.sleep(arguments.seconds)
    return 0


def heal_node(testbed: Testbed, arguments: argparse.Namespace) -> int:
    """Connect a node again."""
    testbed.heal(arguments.node)
    return 0


def show_status(testbed: Testbed, arguments: argparse.Namespace) -> int:
    """Show the nodes."""
    say(json.dumps(testbed.status(), indent=2) if arguments.json else format_status(testbed))
    return 0


def run_program(testbed: Testbed, arguments: argparse.Namespace) -> int:
    """Run a program on a node; signals go to it, and its exit code is ours."""
    program = arguments.program[1:] if arguments.program[:1] == ["--"] else arguments.program
    if not program:
        raise TestbedError(f"run: no command; write `testbed run {arguments.node} -- COMMAND`")
    process = testbed.start(arguments.node, program, stdin=None)
    for sign in FORWARDED:
        signal.signal(sign, lambda number, frame: process.send_signal(number))
    code = process.wait()
    return code if code >= 0 else 128 - code


def show_environment(testbed: Testbed, arguments: argparse.Namespace) -> int:
    """Print a node's variables so that a shell can take them over."""
    for name, value in testbed.environment(arguments.node).items():
        say(f"export {name}={shlex.quote(value)}")
    return 0


def parse_variables(assignments: Sequence[str] | None) -> dict[str, str]:
    """Return variables from NAME=VALUE.

    Raises:
        TestbedError: One is not of that form.
    """
    variables = {}
    for assignment in assignments or ():
        name, sign, value = assignment.partition("=")
        if not name or not sign:
            raise TestbedError(f"--env {assignment!r}: must be NAME=VALUE")
        variables[name] = value
    return variables


def format_status(testbed: Testbed) -> str:
    """Return the status as a table."""
    status = testbed.status()
    lines = [f"testbed {status['root']}, shared folder {status['shared']}"]
    for name, node in status["nodes"].items():
        facts = f"{node['processes']} processes" if "processes" in node else ""
        if node.get("raylet"):
            facts += f", Ray with {node['ray_workers']} workers"
        lines.append(f"{name:9} {node['address']:13} {node['state']:5} {facts}".rstrip())
    return "\n".join(lines)


def say(text: str) -> None:
    """Print a text."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
