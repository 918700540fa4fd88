"""What a machine must have for a testbed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from cluster.testbed.namespaces import UNSHARE
from cluster.testbed.plan import Plan

PROGRAMS = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "setsid": "util-linux",
    "mount": "mount",
    "env": "coreutils",
}
"""Programs by the Debian package that brings them."""

TRIAL = (
    "ip link add bridge0 type bridge && ip link add cable type veth peer name eth0"
    " && ip link set cable master bridge0 && mount -t tmpfs tmpfs /dev/shm"
)
"""What every node needs to do, done once in namespaces that end with it."""

POSTGRES_ROOT = Path("/usr/lib/postgresql")
"""Where Debian keeps PostgreSQL's servers, one folder for each version."""


def find_obstacle(plan: Plan) -> str | None:
    """Return why a testbed cannot be brought up on this machine; None = it can."""
    if sys.platform != "linux":
        return f"a testbed needs Linux; this is {sys.platform}"
    if os.geteuid():
        return "a testbed needs root (network namespaces)"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"program {program}: not found; `apt-get install {package}`"
    tried = subprocess.run(
        [*UNSHARE, "sh", "-c", TRIAL], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"namespaces are not allowed on this machine ({reason})"
    return _find_missing(plan)


def _find_missing(plan: Plan) -> str | None:
    """Return what a plan's servers lack."""
    if plan.tracking and find_postgres() is None:
        return "PostgreSQL: not found; `apt-get install postgresql`"
    modules = [
        ("ray", plan.ray, "distprune"),
        ("mlflow", plan.tracking, "distprune"),
        ("psycopg2", plan.tracking, "distprune[cluster]"),
        ("moto.server", plan.s3, "distprune[cluster]"),
    ]
    wanted = {name: package for name, is_wanted, package in modules if is_wanted}
    if not wanted:
        return None
    programs = find_programs()
    if programs is None:
        return "Ray: not found; `pip install distprune`, or run the testbed with that Python"
    missing = _find_missing_modules(programs / "python", list(wanted))
    if missing:
        return f"Python package {missing[0]}: not found; `pip install '{wanted[missing[0]]}'`"
    return None


def _find_missing_modules(python: Path, names: list[str]) -> list[str]:
    """Return the modules that a Python does not have; nothing is imported but parents."""
    code = (
        "import sys; from importlib.util import find_spec; from contextlib import suppress\n"
        "for name in sys.argv[1:]:\n"
        "    found = None\n"
        "    with suppress(ImportError): found = find_spec(name)\n"
        "    if found is None: print(name)\n"
    )
    command = [str(python), "-c", code, *names]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else names


def find_programs() -> Path | None:
    """Return the folder with Ray's programs: this Python's, or that of the repository."""
    repository = Path(__file__).resolve().parents[2]
    for folder in (Path(sys.executable).parent, repository / ".venv" / "bin"):
        if (folder / "ray").exists():
            return folder
    return None


def find_postgres() -> Path | None:
    """Return the folder with PostgreSQL's programs, of the newest version that is installed."""
    versions = [path.parent for path in POSTGRES_ROOT.glob("*/bin/initdb")]
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None
