"""Prepare nine faults on three hosts of the testbed and print what `distprune doctor` says to each.

Ends with exit code 1 if it misses one. Needs what cluster/testbed needs, root among it.

python scripts/doctor_faults.py
python scripts/doctor_faults.py --only "clock skew" "full disk"
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from cluster.testbed import Plan, Testbed, TestbedError  # noqa: E402
from scripts.benchmark.arms import say  # noqa: E402
from scripts.chaos.plans import StudyKind  # noqa: E402
from scripts.chaos.studies import Inputs, make_inputs, study_values, write_study  # noqa: E402

ROOT = Path("/var/tmp/distprune-doctor-testbed")
DRIVER, OTHER = "h1", "h3"
JOIN_LIMIT_S = 60.0
SKEW_S = 180
SILENT_S = 300
FULL = "size=4k,nr_inodes=2"
"""Of a file system that has space for a folder, and for nothing in it."""


@dataclass(frozen=True)
class Fault:
    """Something that is wrong, and what has to be said of it.

    Attributes:
        name: What it is called.
        words: What the doctor's answer has to contain.
        prepare: Makes it on the testbed, and mends it.
        options: Of the doctor, beside the study file.
        environment: Variables of the doctor.
        exit_code: 1 for what a study would fail of.
    """

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Testbed, Path], AbstractContextManager[object]] = lambda *_: nullcontext()
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    exit_code: int = 1


@contextmanager
def restart_with(testbed: Testbed, **environment: str) -> Iterator[None]:
    """Give one host variables of its own for the block."""
    try:
        restart(testbed, environment)
        yield
    finally:
        restart(testbed, {})


def restart(testbed: Testbed, environment: dict[str, str]) -> None:
    """Restart the host that is no driver, and wait until Ray counts on it."""
    testbed.restart(OTHER, environment)
    while testbed.alive_hosts(3, JOIN_LIMIT_S) != list(testbed.hosts):
        time.sleep(1.0)


def install_other_version(testbed: Testbed, studies: Path) -> AbstractContextManager[object]:
    """Let one host import another distprune."""
    del studies
    package = testbed.shared / "old" / "distprune"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "0.0.9"\n')
    return restart_with(testbed, PYTHONPATH=str(package.parent))


def put_clock_forward(testbed: Testbed, studies: Path) -> AbstractContextManager[object]:
    """Let every Python process of one host read another time."""
    del studies
    folder = testbed.shared / "skewed"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"import time\nreal = time.time\ntime.time = lambda: real() + {SKEW_S}\n"
    )
    return restart_with(testbed, PYTHONPATH=str(folder))


@contextmanager
def fill_disk(testbed: Testbed, studies: Path) -> Iterator[None]:
    """Mount a full file system under the storage's path, on one host alone."""
    store = studies / "store"
    store.mkdir(parents=True, exist_ok=True)
    call(testbed, OTHER, "mount", "-t", "tmpfs", "-o", FULL, "none", str(studies))
    call(testbed, OTHER, "mkdir", str(store))
    try:
        yield
    finally:
        call(testbed, OTHER, "umount", str(studies))


@contextmanager
def stop_tracking(testbed: Testbed, studies: Path) -> Iterator[None]:
    """Let the tracking server be away for the block."""
    del studies
    testbed.kill("tracking")
    try:
        yield
    finally:
        testbed.restart("tracking")


@contextmanager
def leave_lease(testbed: Testbed, studies: Path) -> Iterator[None]:
    """Kill a process that holds a stage's lease, and let some minutes pass."""
    code = (
        "import sys, time; from distprune.store.store import Store; store = Store(sys.argv[1]);\n"
        f"with store.lease('{'0' * 64}'): time.sleep(600)"
    )
    store = studies / "store"
    command = ["python", "-c", code, str(store)]
    holder = testbed.start(OTHER, command)
    while not list(store.glob("leases/*.json")):
        time.sleep(0.1)
    holder.kill()
    (lease,) = store.glob("leases/*.json")
    past = time.time() - SILENT_S
    os.utime(lease, (past, past))
    yield


def call(testbed: Testbed, host: str, *command: str) -> None:
    """Run a command on a host; it has to end well."""
    done = testbed.run(host, command)
    if done.returncode:
        raise TestbedError(f"{' '.join(command)}: {done.stderr.strip()}")


FAULTS = (
    Fault("wrong token", ("token", "refuses"), environment={"RAY_AUTH_TOKEN": "f" * 64}),
    Fault("wrong version on one node", ("versions", "0.0.9"), install_other_version),
    Fault("unshared storage", ("storage",), options=("--storage", "/tmp/studies")),
    Fault("no tracking server", ("tracking", "10.77.0.3"), stop_tracking),
    Fault("full disk", ("storage", "No space left"), fill_disk),
    Fault(
        "missing checkpoint",
        ("checkpoint", "/tmp/checkpoint"),
        options=("--set", "trial.checkpoint=/tmp/checkpoint"),
    ),
    Fault("no memory", ("memory",), options=("--set", "resources.stage_memory_mib=8192")),
    Fault("stale lease", ("leases", "silent for"), leave_lease, exit_code=0),
    Fault("clock skew", ("clock", "ahead of"), put_clock_forward),
)


def main() -> None:
    """Go through the faults that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="FAULT")
    arguments = parser.parse_args()
    try:
        with Testbed.lend(Plan(hosts=3, cpus=1, tracking=True), ROOT) as testbed:
            inputs = make_inputs(testbed.shared / "inputs")
            call(testbed, DRIVER, "cp", "-r", str(inputs.checkpoint), "/tmp/checkpoint")
            well = Fault("none", ("ok",), exit_code=0)
            asked = [well, *(fault for fault in FAULTS if fault.name in arguments.only)]
            missed = [fault.name for fault in asked if not consult(testbed, inputs, fault)]
    except TestbedError as error:
        sys.exit(str(error))
    say(f"missed: {', '.join(missed)}" if missed else f"all {len(asked) - 1} found")
    sys.exit(1 if missed else 0)


def consult(testbed: Testbed, inputs: Inputs, fault: Fault) -> bool:
    """Print what the doctor says to a fault; say whether it has found it."""
    folder = testbed.shared / fault.name.replace(" ", "-")
    studies = folder / "studies"
    studies.mkdir(parents=True)
    values = study_values(StudyKind.PARALLEL, inputs, studies, testbed.tracking_uri)
    file = write_study(values, folder / "file")
    command = ["distprune", "doctor", str(file), "--address", "auto", *fault.options]
    with fault.prepare(testbed, studies):
        # Ray lets workers import what lies in the driver's folder: not this repository.
        environment = {"COLUMNS": "110"} | fault.environment
        done = testbed.run(DRIVER, command, cwd=folder, environment=environment)
    print(f"\n## {fault.name}: {' '.join(['distprune doctor study.yaml', *command[3:]])}\n")
    print(done.stdout + done.stderr, flush=True)
    found = done.returncode == fault.exit_code and all(word in done.stdout for word in fault.words)
    if not found:
        print(
            f"-- MISSED: exit code {done.returncode}, must be {fault.exit_code} and name "
            f"{', '.join(fault.words)}",
            flush=True,
        )
    return found


if __name__ == "__main__":
    main()
