"""The two programs that are compared, as arms: how they are started, and what they left."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distprune.library.history import History, TrialRecord, read_trials
from distprune.library.study_folder import StudyFolder
from scripts.benchmark.arms import Arm, EndedArm, Watch, run_module
from scripts.benchmark.configurations import Configuration, study_values
from scripts.benchmark.settings import CONCURRENT, REPOSITORY, Settings

HERE = Path(__file__).parent
STUDY_FILE = "study.yaml"
OUTPUT = "results.json"
TARGET = 0.5


@dataclass(frozen=True)
class Level:
    """Sparsity and accuracy (on the search split) of one level of a trial."""

    sparsity: float
    accuracy: float


@dataclass(frozen=True)
class Trial:
    """What a trial of either arm came to.

    Attributes:
        configuration: Its settings.
        dense: Accuracy of its dense model; None = it never got so far.
        levels: Its levels after that.
    """

    configuration: Configuration
    dense: float | None
    levels: tuple[Level, ...]

    @property
    def at_target(self) -> float | None:
        """Accuracy at the target sparsity; None = it did not get there."""
        reached = [level.accuracy for level in self.levels if level.sparsity >= TARGET - 1e-9]
        return reached[-1] if reached else None


def run_naive(
    settings: Settings,
    name: str,
    configurations: Sequence[Configuration] = (),
    arguments: Sequence[str] = (),
    concurrent: int = CONCURRENT,
    watch: Watch | None = None,
) -> EndedArm:
    """Run the hand-written script, on given configurations or with more arguments."""
    folder, data = settings.work / name, prepare_data(settings)
    points = [{**one.to_json(), "rewinding": str(one.rewinding)} for one in configurations]
    inputs = (("points.json", json.dumps(points)),) if points else ()
    given = ("--configurations", str(folder / "points.json")) if points else ()
    command = (
        sys.executable,
        str(HERE / "naive.py"),
        str(data),
        *("--storage", str(folder / "storage"), "--output", str(folder / OUTPUT)),
        *("--concurrent", str(concurrent), "--examples", str(settings.scored_examples)),
        *given,
        *arguments,
    )
    identity = identify(command, inputs, settings, [HERE / "naive.py"])
    return Arm(folder, command, identity, inputs).run(watch)


def run_distprune(
    settings: Settings,
    name: str,
    values: Mapping[str, Any],
    switch: str | None = None,
    arguments: Sequence[str] = (),
    watch: Watch | None = None,
) -> EndedArm:
    """Run a study through distprune's command line, with or without one of the switches."""
    folder = settings.work / name
    inputs = ((STUDY_FILE, yaml.safe_dump(dict(values), sort_keys=False)),)
    given = (str(folder / STUDY_FILE), "--json", *arguments)
    if switch is None:
        command = run_module("distprune", "search", *given)
    else:
        command = run_module("scripts.benchmark.changed_search", switch, *given)
    code = sorted((REPOSITORY / "distprune").rglob("*.py"))
    if switch is not None:
        code += [HERE / "changed_search.py", HERE / "switches.py"]
    identity = identify(command, inputs, settings, code)
    return Arm(folder, command, identity, inputs).run(watch)


def prepare_data(settings: Settings) -> Path:
    """Write the splits of distprune's task as JSON lines, once, and return their folder."""
    folder = settings.work / "data"
    values = study_values(settings, "export", folder / "studies", 1)
    inputs = ((STUDY_FILE, yaml.safe_dump(values, sort_keys=False)),)
    command = run_module("scripts.benchmark.export", folder / STUDY_FILE, folder)
    Arm(folder, command, identify(command, inputs, settings, []), inputs).run()
    return folder


def identify(
    command: Sequence[str],
    inputs: Sequence[tuple[str, str]],
    settings: Settings,
    code: Sequence[Path],
) -> dict[str, Any]:
    """Return what decides an arm's result: its command, its inputs, its data and its code."""
    digest = hashlib.sha256()
    for path in code:
        digest.update(path.read_bytes())
    return {
        "command": list(command),
        "inputs": [list(pair) for pair in inputs],
        "examples": [settings.train_examples, settings.search_examples],
        "code": digest.hexdigest(),
    }


def storage(settings: Settings, name: str) -> Path:
    """Return the storage folder of distprune's arm `name`."""
    return settings.work / name / "studies"


def read_naive(ended: EndedArm) -> tuple[list[Trial], dict[str, Any]]:
    """Return the trials of the hand-written script, and what `get_best_result` returned."""
    return parse_naive(json.loads((ended.folder / OUTPUT).read_text()))


def parse_naive(results: Mapping[str, Any]) -> tuple[list[Trial], dict[str, Any]]:
    """Read what the hand-written script has written."""
    trials = [
        Trial(
            parse_configuration(trial["config"]),
            trial["dense_accuracy"],
            tuple(Level(level["sparsity"], level["accuracy"]) for level in trial["levels"]),
        )
        for trial in results["trials"]
    ]
    return trials, results["best_result"]


def parse_configuration(config: Mapping[str, Any]) -> Configuration:
    """Read a configuration as Tune hands it out; rewinding points are words there."""
    rewinding = config["rewinding"]
    return Configuration(
        coefficient=config["coefficient"],
        levels=config["levels"],
        rewinding=rewinding if rewinding == "continue" else float(rewinding),
    )


def read_distprune(folder: StudyFolder) -> list[Trial]:
    """Return the trials of a study."""
    records = read_trials(History(folder.history).events())
    return [parse_record(record) for _, record in sorted(records.items())]


def parse_record(record: TrialRecord) -> Trial:
    """Read what the history says about one trial."""
    pruning = record.start.spec["pruning"]
    configuration = Configuration(
        coefficient=pruning["mixing"]["coefficient"],
        levels=pruning["schedule"]["levels"],
        rewinding=pruning["rewinding"],
    )
    dense = [level.metric for level in record.levels if level.level == 0]
    levels = tuple(Level(one.sparsity, one.metric) for one in record.levels if one.level > 0)
    return Trial(configuration, dense[0] if dense else None, levels)


def best_at_target(trials: Sequence[Trial]) -> float | None:
    """Return the best accuracy at the target sparsity; None = no trial got there."""
    return max((trial.at_target for trial in trials if trial.at_target is not None), default=None)
