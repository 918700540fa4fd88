"""What a study has left, read as others would read it, and how it differs from its twin's."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from distprune.library.study_folder import StudyFolder
from distprune.store.paths import PATHS
from distprune.tracking import naming
from distprune.tracking.client import open_client, prepare_environment
from tests.cli.ended_study import describe_trials

TIMES = ("level/seconds", "stages/")
"""Beginnings of the names of metrics that say what something cost; no two studies agree on them."""

OUR_TEMPORARIES = "distprune-*"
"""Temporary folders of the driver, in the system's folder for them."""


@dataclass(frozen=True)
class Evidence:
    """What a study has left; of an undisturbed twin everything is the same.

    Attributes:
        trials: What the history says about each trial, but when and how long.
        leaderboard: Digests of its files.
        masks: Digests of the best masks, by milestone.
        runs: The study's tracked runs: name, parent, status, outcome, parameters, metrics with all
            their steps, artifacts.
        proposals: Optuna's trials that are neither failed nor under way: state, parameters, values
            by milestone.
        unended: Optuna's trials that have not ended.
        stages: Keys of the stored entries.
        litter: Temporary files, and leases that nobody holds.
    """

    trials: Sequence[Any]
    leaderboard: Mapping[str, str]
    masks: Mapping[str, str]
    runs: Sequence[Any]
    proposals: Sequence[Any]
    unended: Sequence[str]
    stages: Sequence[str]
    litter: Sequence[str]


def gather_evidence(
    folder: StudyFolder, tracking: str | None, temporaries: Sequence[Path]
) -> Evidence:
    """Read what an ended study has left.

    Args:
        folder: The study.
        tracking: Address of its tracking server; None = a file beside it.
        temporaries: Folders that its driver has used for temporary files.
    """
    proposals, unended = read_proposals(folder)
    values = {
        "trials": describe_trials(folder),
        "leaderboard": digest_all(folder.root.glob("leaderboard.*")),
        "masks": digest_all(folder.masks.glob("*/mask.safetensors")),
        "runs": read_runs(folder, tracking or f"sqlite:///{folder.tracking_database}"),
        "proposals": proposals,
        "unended": unended,
        "stages": sorted(path.name for path in (folder.store / PATHS.entries).glob("??/*")),
        "litter": sorted(find_litter(folder, temporaries)),
    }
    # Read on another host it travels as JSON, and must be equal all the same.
    return Evidence(**json.loads(json.dumps(values)))


def find_differences(found: Evidence, twin: Evidence, damaged: Sequence[str] = ()) -> list[str]:
    """Say in one line each how a study differs from its undisturbed twin; nothing = it does not.

    Args:
        found: What the disturbed study has left.
        twin: What the other one has left.
        damaged: Keys of entries that were damaged on purpose. They are missed only where something
            needs them: who needs none does not compute it again.
    """
    kept = [key for key in twin.stages if key in found.stages or key not in damaged]
    twin = replace(twin, stages=kept)
    return [
        f"{field.name}: {describe_difference(here, there)}"
        for field in fields(Evidence)
        if (here := getattr(found, field.name)) != (there := getattr(twin, field.name))
    ]


def describe_difference(found: Any, wanted: Any) -> str:
    """Return the first difference of two values that are not equal."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in {**wanted, **found}:
            if found.get(key) != wanted.get(key):
                return f"{key}: {describe_difference(found.get(key), wanted.get(key))}"
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        if len(found) != len(wanted):
            more = [shorten(one) for one in found if one not in wanted]
            less = [shorten(one) for one in wanted if one not in found]
            return f"{len(found)} instead of {len(wanted)}; more: {more[:3]}; missed: {less[:3]}"
        for here, there in zip(found, wanted, strict=True):
            if here != there:
                return describe_difference(here, there)
    return f"{shorten(found)} instead of {shorten(wanted)}"


def shorten(value: Any) -> str:
    """Return the beginning of a value's text."""
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def read_runs(folder: StudyFolder, uri: str) -> list[Any]:
    """Return the tracked runs of a study, sorted; a run that is there twice is there twice."""
    prepare_environment()
    client = open_client(uri)
    experiment = client.get_experiment_by_name(naming.name_experiment(folder.name))
    if experiment is None:
        return []
    study_id = json.loads(folder.environment.read_text())["study_id"]
    runs = client.search_runs(
        [experiment.experiment_id],
        filter_string=f"tags.`{naming.STUDY_ID}` = '{study_id}'",
        max_results=1000,
    )
    names = {run.info.run_id: run.info.run_name for run in runs}
    return sorted(
        [
            run.info.run_name,
            names.get(run.data.tags.get(naming.PARENT_RUN, ""), ""),
            run.info.status,
            run.data.tags.get(naming.OUTCOME, ""),
            sorted(run.data.params.items()),
            sorted(list_points(client, run)),
            sorted(list_artifacts(client, run.info.run_id)),
        ]
        for run in runs
    )


def list_points(client: Any, run: Any) -> Iterator[tuple[str, int, float]]:
    """Yield all that was ever logged of a run's metrics: name, step, value."""
    for name in run.data.metrics:
        if not name.startswith(TIMES):
            for point in client.get_metric_history(run.info.run_id, name):
                yield name, point.step, point.value


def list_artifacts(client: Any, run_id: str, folder: str | None = None) -> Iterator[str]:
    """Yield the paths of a run's artifacts."""
    for artifact in client.list_artifacts(run_id, folder):
        if artifact.is_dir:
            yield from list_artifacts(client, run_id, artifact.path)
        else:
            yield artifact.path


def read_proposals(folder: StudyFolder) -> tuple[list[Any], list[str]]:
    """Return what Optuna's journal says of trials that have ended well, and of unended ones."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="chaos-") as aside:
        # Opening a journal can write to it.
        copy = shutil.copy(folder.optuna_journal, Path(aside) / "journal")
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(copy)))
        trials = optuna.load_study(study_name=folder.name, storage=storage).get_trials()
    ended = [
        [trial.state.name, sorted(trial.params.items()), sorted(trial.intermediate_values.items())]
        for trial in trials
        if trial.state.name in ("COMPLETE", "PRUNED")
    ]
    unended = [f"{t.number} {t.state.name}" for t in trials if not t.state.is_finished()]
    return sorted(ended, key=str), unended


def find_litter(folder: StudyFolder, temporaries: Sequence[Path]) -> Iterator[str]:
    """Yield the paths of temporary files, and of leases."""
    store = folder.store
    known = {store / PATHS.guard, store / PATHS.eviction}
    for path in (store / PATHS.temporary).glob("*"):
        yield f"store/{path.relative_to(store)}"
    for path in (store / PATHS.leases).glob("*"):
        if path not in known:
            yield f"store/{path.relative_to(store)}"
    for path in folder.root.rglob(".*"):
        if not path.is_relative_to(folder.ray):
            yield str(path.relative_to(folder.storage))
    for pattern in (f"{folder.tracking_database.name}-*", f"{folder.optuna_journal.name}.*"):
        yield from (str(path.relative_to(folder.storage)) for path in folder.root.glob(pattern))
    for temporary in temporaries:
        yield from (path.name for path in temporary.glob(OUR_TEMPORARIES))


def digest_all(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of files, by folder and name."""
    return {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
    }


def main() -> None:
    """Print the evidence of a study as JSON: STORAGE NAME TRACKING [TEMPORARY ...]."""
    storage, name, tracking, *temporaries = sys.argv[1:]
    folder = StudyFolder(Path(storage), name)
    paths = [Path(one) for one in temporaries]
    print(json.dumps(asdict(gather_evidence(folder, tracking or None, paths))))


if __name__ == "__main__":
    main()
