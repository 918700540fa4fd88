"""A search of so many trials of trivial stages, measured: driver, Optuna, MLflow, store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from distprune.library.study_folder import StudyFolder
from distprune.store.store import Store
from scripts.benchmark.arms import Arm, RunningArm, Watch, run_module
from scripts.benchmark.figures.trials import ARM, MIB, count_ended, trivial_study
from scripts.benchmark.samples import read_samples, write_sample
from scripts.benchmark.settings import REPOSITORY, quick_settings
from scripts.benchmark.spread import fit_slope
from scripts.benchmark.studies import STUDY_FILE, identify, storage

PROBES = "probes.json"
AGAIN = "again"


@dataclass(frozen=True)
class Size:
    """A search of so many trials, measured.

    Attributes:
        trials: How many.
        seconds: From the start of the driver to its end.
        again_seconds: The same, of the same command once more, when everything had ended.
        samples: Every second: trials that have ended, memory, seconds since the start.
        probes: What is called in the driver: calls and seconds, by tenth of the trials.
        again_probes: The same, when the command ran once more.
        store: Seconds of each way to list the store, and how much there is in it.
    """

    trials: int
    seconds: float
    again_seconds: float
    samples: list[dict[str, float]]
    probes: dict[str, list[dict[str, float]]]
    again_probes: dict[str, list[dict[str, float]]]
    store: dict[str, float]

    def calls(self, prefix: str) -> float:
        """Return the calls of all that begins with a prefix."""
        return sum(one["calls"] for one in self._list(prefix))

    def time(self, prefix: str) -> float:
        """Return the seconds of all that begins with a prefix."""
        return sum(one["seconds"] for one in self._list(prefix))

    def time_in_last_tenth(self, prefix: str) -> float:
        """Return the seconds of all that begins with a prefix, in the last tenth of the trials."""
        return sum(
            sums[-1]["seconds"] for name, sums in self.probes.items() if name.startswith(prefix)
        )

    @property
    def last_trials_a_second(self) -> float:
        """Trials a second in the second half of the study."""
        half = [s for s in self.samples if self.trials / 2 <= s["trials"] < self.trials]
        return fit_slope([(sample["seconds"], sample["trials"]) for sample in half])

    @property
    def memory_mib(self) -> float:
        """Most memory that is the driver's own."""
        return max((sample["uss_mib"] for sample in self.samples), default=0.0)

    @property
    def growth_mib(self) -> float:
        """Growth of the driver's memory in 100 trials, in the second half of the study."""
        half = [s for s in self.samples if self.trials / 2 <= s["trials"] < self.trials]
        return 100 * fit_slope([(sample["trials"], sample["uss_mib"]) for sample in half])

    def _list(self, prefix: str) -> Iterable[dict[str, float]]:
        return (one for name, s in self.probes.items() if name.startswith(prefix) for one in s)


def measure_size(work: Path, trials: int, tracking: Mapping[str, Any]) -> Size:
    """Run a search of so many trials, then the same again, then list its store.

    Args:
        work: Folder of all sizes; a search that has ended there is not run again.
        trials: How many.
        tracking: The study's settings of tracking.
    """
    settings = replace(quick_settings(work / str(trials)), trivial_trials=trials)
    values = {**trivial_study(settings), "tracking": dict(tracking)}
    folder = StudyFolder(storage(settings, ARM), ARM)
    first = run_search(settings.work / ARM, values, trials, folder)
    again = run_search(settings.work / AGAIN, values, trials, folder)
    return Size(
        trials=trials,
        seconds=first,
        again_seconds=again,
        samples=read_samples(settings.work / ARM),
        probes=read_probes(settings.work / ARM),
        again_probes=read_probes(settings.work / AGAIN),
        store=time_listings(folder),
    )


def read_probes(place: Path) -> dict[str, list[dict[str, float]]]:
    """Read what the driver of a search has measured."""
    probes: dict[str, list[dict[str, float]]] = json.loads((place / PROBES).read_text())["probes"]
    return probes


def run_search(place: Path, values: dict[str, Any], trials: int, folder: StudyFolder) -> float:
    """Run a search in a folder for what it prints, and return its seconds."""
    inputs = ((STUDY_FILE, yaml.safe_dump(values, sort_keys=False)),)
    command = run_module(
        "scripts.scale.measured_search",
        *(place / PROBES, trials, place / STUDY_FILE, "--json"),
    )
    code = sorted([*(REPOSITORY / "distprune").rglob("*.py"), *Path(__file__).parent.glob("*.py")])
    settings = quick_settings(place.parent)
    arm = Arm(place, command, identify(command, inputs, settings, code), inputs)
    return arm.run(watch_progress(folder.history)).seconds


def watch_progress(history: Path) -> Watch:
    """Return a watch that writes down trials that have ended, and the driver's memory."""
    started = time.monotonic()

    def watch(arm: RunningArm) -> bool:
        try:
            memory = psutil.Process(arm.pid).memory_full_info()
        except psutil.Error:
            return True
        sample = {
            "seconds": time.monotonic() - started,
            "trials": count_ended(history),
            "rss_mib": memory.rss / MIB,
            "uss_mib": memory.uss / MIB,
        }
        write_sample(arm.folder, sample)
        return True

    return watch


def time_listings(folder: StudyFolder) -> dict[str, float]:
    """Time each way in which commands list a store."""
    store = Store(str(folder.store))
    ways: dict[str, Callable[[], object]] = {
        "keys": lambda: list(store.keys()),
        "entries": lambda: list(store.list_entries()),
        "bytes": store.count_bytes,
    }
    listed: dict[str, float] = {"num_entries": float(len(list(store.keys())))}
    for name, way in ways.items():
        started = time.perf_counter()
        way()
        listed[f"{name}_seconds"] = round(time.perf_counter() - started, 4)
    return listed
