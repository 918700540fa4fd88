"""The Slurm script with a Slurm that only writes down what it was asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster_files.files import CLUSTER

SCRIPT = CLUSTER / "slurm" / "search.sbatch"

STUBS = {
    "srun": 'echo "srun $*" >> "$LOG"\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
    "scontrol": 'echo "scontrol $*" >> "$LOG"\n'
    '[[ $1 != show ]] || printf "node1\\nnode2\\nnode3\\n"\n',
    "hostname": 'echo "10.1.2.3 fe80::1 "\n',
    "ray": 'echo "ray $1 auth=$RAY_AUTH_MODE,${#RAY_AUTH_TOKEN}" >> "$LOG"\n'
    "[[ $1 != start ]] || exec sleep 60\n",
    # A study is over only when all of its cluster has started.
    "python": 'echo "python $*" >> "$LOG"\n[[ -z $LASTS ]] || exec sleep "$LASTS"\n'
    'until (($(grep -c "^ray start" "$LOG") == (SLURM_JOB_NUM_NODES > 1 ? 2 : 1)))\n'
    'do sleep 0.05; done\nexit "$CODE"\n',
}


@dataclass(frozen=True)
class Allocation:
    """A home folder with the environment, and what Slurm would set.

    Attributes:
        folder: The home folder.
        variables: The environment of the job.
    """

    folder: Path
    variables: dict[str, str]

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            env=self.variables | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def log(self) -> list[str]:
        path = Path(self.variables["LOG"])
        return path.read_text().splitlines() if path.exists() else []

    def find(self, words: str) -> list[str]:
        return [line for line in self.log if words in line]


@pytest.fixture
def allocation(tmp_path: Path) -> Allocation:
    programs = tmp_path / "environment" / "bin"
    programs.mkdir(parents=True)
    for name, code in STUBS.items():
        path = programs / name
        path.write_text(f"#!/usr/bin/env bash\nset -eu\n{code}")
        path.chmod(0o755)
    secrets = tmp_path / ".distprune" / "environment"
    secrets.parent.mkdir()
    secrets.write_text("RAY_AUTH_TOKEN=0123456789\n")
    secrets.chmod(0o600)
    variables = {
        "HOME": str(tmp_path),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "DISTPRUNE_ENVIRONMENT": str(programs.parent),
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "8",
        "CODE": "0",
        "LASTS": "",
    }
    return Allocation(tmp_path, variables)


def test_study_runs_on_head_and_workers(allocation: Allocation) -> None:
    process = allocation.start("study.yaml", "--storage", "/scratch/my studies")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    port = 20000 + 4 * (4711 % 2900)
    (head,) = allocation.find("ray start --head --node")
    assert "--nodelist=node1" in head
    assert f"--port={port}" in head
    assert "--dashboard-host=127.0.0.1" in head
    (workers,) = allocation.find("ray start --address")
    assert "--nodes=2" in workers
    assert "--exclude=node1" in workers
    assert f"--address=10.1.2.3:{port}" in workers
    driver = f"python -m distprune search study.yaml --address 10.1.2.3:{port}"
    step = "srun --nodes=1 --ntasks=1 --nodelist=node1 --overlap"
    assert allocation.find("python -m") == [
        f"{step} {driver} --storage /scratch/my studies",
        f"{driver} --storage /scratch/my studies",
    ]
    assert set(allocation.find("auth=")) == {
        *("ray health-check auth=token,10", "ray start auth=token,10")
    }
    assert not any("0123456789" in line for line in allocation.log)


def test_one_node_is_enough(allocation: Allocation) -> None:
    process = allocation.start("study.yaml", SLURM_JOB_NUM_NODES="1")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert allocation.find("ray start --address") == []


def test_exit_code_is_that_of_the_study(allocation: Allocation) -> None:
    process = allocation.start("study.yaml", CODE="2")
    process.communicate(timeout=60)
    assert process.returncode == 2
    assert allocation.find("requeue") == []


def test_allocation_that_ends_is_queued_again(allocation: Allocation) -> None:
    process = allocation.start("study.yaml", LASTS="61")
    limit = time.monotonic() + 30
    while not allocation.find("python -m distprune") and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert "queued again" in out
    assert allocation.find("requeue") == ["scontrol requeue 4711"]
    left = subprocess.run(["pgrep", "-xf", "sleep 61"], capture_output=True, check=False).stdout
    assert left == b""


@pytest.mark.parametrize(
    ("change", "words"),
    [("open", "chmod 600"), ("no token", "RAY_AUTH_TOKEN"), ("no study", "usage")],
)
def test_refusals(allocation: Allocation, change: str, words: str) -> None:
    secrets = allocation.folder / ".distprune" / "environment"
    if change == "open":
        secrets.chmod(0o644)
    elif change == "no token":
        secrets.write_text("")
    process = allocation.start(*([] if change == "no study" else ["study.yaml"]))
    out, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    assert words in out
    assert allocation.find("ray start") == []
