"""`distprune search` on the testbed, started on one host or another, and what it leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.testbed import HostProcess, Testbed
from tests.cli.tiny_search import tiny_values

NAME = "tiny"
NUM_TRIALS = 6
LIMIT_S = 240.0
LIST_RUNS = Path(__file__).with_name("list_runs.py")


@dataclass(frozen=True)
class Results:
    """What a study has left, but for what it cost and when.

    Attributes:
        leaderboard: The leaderboard.
        masks: The best masks' files by milestone.
        runs: Its runs on the tracking server.
        hosts: For each trial's run, the hosts that computed its stages.
    """

    leaderboard: dict[str, Any]
    masks: dict[str, bytes]
    runs: list[dict[str, Any]]
    hosts: dict[str, str]


@dataclass(frozen=True)
class ClusterStudy:
    """A study on the testbed.

    Attributes:
        testbed: The testbed.
        folder: Where its file and the output of its drivers are; all hosts see it.
        storage: Where it is kept, a folder or a URI.
        name: Its name.
        limit_s: Longest wait for a driver, or for a condition.
    """

    testbed: Testbed
    folder: Path
    storage: str
    name: str = NAME
    limit_s: float = LIMIT_S
    drivers: list[HostProcess] = field(default_factory=list)

    @property
    def file(self) -> Path:
        """The study file."""
        return self.folder / "study.yaml"

    def write(self, inputs: Path, **changes: Any) -> None:
        """Write a study that ends the same in whatever order its trials run.

        Random proposals do not look at results, and without ASHA none of them is stopped.
        """
        values = tiny_values(Path(), inputs / "checkpoint", inputs / "words.csv")
        values |= {
            "num_trials": NUM_TRIALS,
            "sampler": {"name": "random"},
            "stopping": None,
            "resources": {"cpus_per_stage": 1, "shared_cpus": 1, "trial_memory_mib": 200},
        }
        self.write_values(values | changes)

    def write_values(self, values: dict[str, Any]) -> None:
        """Write these values into a new study file, with its name, storage and tracking server."""
        own = {
            "name": self.name,
            "storage": self.storage,
            "tracking": {"uri": self.testbed.tracking_uri},
        }
        self.folder.mkdir(parents=True)
        self.file.write_text(yaml.safe_dump(values | own, sort_keys=False))

    def start(self, host: str) -> HostProcess:
        """Start a driver on a host; what it prints goes to the study's folder."""
        number = len(self.drivers) + 1
        with (
            (self.folder / f"driver-{number}.out").open("wb") as out,
            (self.folder / f"driver-{number}.err").open("wb") as err,
        ):
            command = ["distprune", "search", str(self.file), "--address", "auto"]
            driver = self.testbed.start(host, command, stdout=out, stderr=err, cwd=self.folder)
        self.drivers.append(driver)
        return driver

    def finish(self, driver: HostProcess) -> None:
        """Wait for a driver to end well."""
        code = driver.wait(self.limit_s)
        assert code == 0, f"exit code {code}\n{self.read_output()}"

    def read_output(self) -> str:
        """Return what all drivers have printed so far."""
        files = sorted(self.folder.glob("driver-*"))
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in files)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition while the latest driver works."""
        end = time.monotonic() + self.limit_s
        while not condition():
            assert self.drivers[-1].poll() is None, f"the driver ended\n{self.read_output()}"
            assert time.monotonic() < end, f"it never came true\n{self.read_output()}"
            time.sleep(0.1)

    def count_reports(self) -> int:
        """Count the milestones that the latest driver has seen reached."""
        output = self.folder / f"driver-{len(self.drivers)}.out"
        return sum("% removed" in line for line in output.read_text().splitlines())

    def read_results(self) -> Results:
        """Return what the study has left."""
        root = self._fetch()
        masks = sorted(root.glob("masks/*/mask.safetensors"))
        runs = self._list_runs(json.loads((root / "environment.json").read_text())["study_id"])
        hosts = {run["name"]: run.pop("hosts") for run in runs}
        return Results(
            leaderboard=json.loads((root / "leaderboard.json").read_text()),
            masks={path.parent.name: path.read_bytes() for path in masks},
            runs=runs,
            hosts={name: text for name, text in hosts.items() if name != "study"},
        )

    def _list_runs(self, study_id: str) -> list[dict[str, Any]]:
        experiment = f"distprune/{self.name}"
        command = ["python", "-P", str(LIST_RUNS), self.testbed.tracking_uri, experiment, study_id]
        done = self.testbed.run("laptop", command)
        assert done.returncode == 0, done.stderr
        runs: list[dict[str, Any]] = json.loads(done.stdout)
        return runs

    def _fetch(self) -> Path:
        """Return a folder of the study's files; those behind a URI are copied."""
        if "://" not in self.storage:
            return Path(self.storage) / self.name
        copy = self.folder / "copy"
        code = "import fsspec, sys; fsspec.filesystem('s3').get(*sys.argv[1:], recursive=True)"
        command = ["python", "-c", code, f"{self.storage}/{self.name}/", f"{copy}/"]
        done = self.testbed.run("laptop", command)
        assert done.returncode == 0, done.stderr
        return copy
