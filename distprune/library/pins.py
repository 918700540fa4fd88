"""Pins: which weights in a store the studies of its storage folder still need.

Two kinds of study pin weights. A mask library pins what its evidence names. A study under way pins
what going on with it needs: the best level at each milestone so far, the last level of each trial
that has not ended, and the weights that all its trials share (dense run, snapshots, probe).

A running study also needs what its trials have made since they last reported, which no file names
yet. That is told by time: whatever was used since the running trial that has been silent for
longest was last heard of is in use.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from distprune.errors import StorageError
from distprune.library.driver_lock import DriverLock
from distprune.library.history import History, TrialRecord, read_trials
from distprune.library.leaderboard import choose_best, read_leaderboard
from distprune.library.study_folder import StudyFolder, StudyStorage
from distprune.store.inventory import EntrySummary
from distprune.store.opening import open_objects

SHARED_STAGES = ("dense", "snapshot", "probe")
"""Stages whose weights all trials of a study can start from."""

CLOCK_SLACK_S = 5.0
"""How coarse the clock of a file system may be."""

_SET_ASIDE = re.compile(r".*\.before-\d{8}-\d{6}")
"""Name of a study that `distprune search --fresh` has set aside; nobody goes on with it."""


@dataclass(frozen=True)
class Pins:
    """What must stay in a store.

    Attributes:
        reasons: Why an entry must stay, by key.
        known: Keys of what the studies' trials have used; what is not pinned of it nobody needs.
        in_use_since: What was used since then is in use by a running study, seconds since the
            epoch; infinite if none runs.
        running: Names of the studies that are running.
    """

    reasons: Mapping[str, str]
    known: frozenset[str]
    in_use_since: float
    running: tuple[str, ...]


@dataclass(frozen=True)
class HistoryDigest:
    """What a study's history says about its weights.

    Attributes:
        known: Keys of all entries that levels were made of.
        best: Keys of the weights of the best level at each milestone so far.
        last: Keys of the weights of the last level of each trial that has not ended.
        last_heard: When each trial that has not ended was last heard of, by the clock of the file
            system or earlier.
        num_trials: Trials that have begun.
    """

    known: frozenset[str]
    best: frozenset[str]
    last: frozenset[str]
    last_heard: tuple[float, ...]
    num_trials: int


def find_pins(storage: StudyStorage, entries: Sequence[EntrySummary]) -> Pins:
    """Find out what the studies of a storage still need.

    Args:
        storage: Where the studies are kept.
        entries: What their store holds; tells which weights the trials of a study share.

    Raises:
        StorageError: What a study needs cannot be read, so nothing may be removed.
    """
    reasons: dict[str, str] = {}
    known: set[str] = set()
    in_use_since = math.inf
    running = []
    for folder in find_studies(storage):
        digest = digest_history(folder)
        known |= digest.known
        started = find_session(folder)
        if started is not None:
            running.append(folder.name)
            in_use_since = min(in_use_since, _find_use(digest, started))
        if started is not None or not _is_over(folder, digest):
            shared = _find_shared(folder, entries)
            reasons |= dict.fromkeys(shared, f"shared by the trials of {folder.name}")
            reasons |= dict.fromkeys(digest.last, f"trials under way of {folder.name}")
            reasons |= dict.fromkeys(digest.best, f"best so far of {folder.name}")
        reasons |= dict.fromkeys(_read_library(folder), f"mask library of {folder.name}")
    return Pins(reasons, frozenset(known), in_use_since, tuple(running))


def find_studies(storage: StudyStorage) -> list[StudyFolder]:
    """Return the studies of a storage, sorted by name; working copies are brought up to date.

    Raises:
        StorageError: The storage cannot be read.
    """
    folders = [storage.find_study(name) for name in storage.list_names()]
    for folder in folders:
        folder.pull()
    return [folder for folder in folders if _is_study(folder)]


def find_session(folder: StudyFolder) -> float | None:
    """Return since when a driver works on a study, seconds since the epoch; None = none does.

    Behind a URI it is since ever, minus infinity.

    Raises:
        StorageError: Nothing tells.
    """
    if folder.uri is not None:
        holder = DriverLock(open_objects(folder.uri), folder.name).find_holder()
        return None if holder is None else -math.inf
    try:
        with folder.lease.open("rb") as file:
            try:
                # Held for an instant; a driver that comes just then tries again.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"study {folder.reference}: nothing tells whether it is running ({folder.lease.name}: "
            f"{error.strerror or error}); give this user access to that file"
        ) from error
    return None


def digest_history(folder: StudyFolder) -> HistoryDigest:
    """Read from a study's history what it says about weights.

    Raises:
        StorageError: It cannot be read.
    """
    if not folder.history.exists():
        return digest_trials({}, ())
    return _digest_files(folder, _sign(folder, folder.configuration), _sign(folder, folder.history))


Signature = tuple[int, float]
"""Size of a file, and when it was last changed."""


def _sign(folder: StudyFolder, path: Path) -> Signature:
    with _reading(folder, path):
        found = path.stat()
    return found.st_size, found.st_mtime


@lru_cache(maxsize=256)
def _digest_files(
    folder: StudyFolder, configuration: Signature, history: Signature
) -> HistoryDigest:
    """Digest a history, once as long as the study's files stay the same."""
    with _reading(folder, folder.configuration):
        settings = yaml.safe_load(folder.configuration.read_text())
        milestones = [float(milestone) for milestone in settings["milestones"]]
    with _reading(folder, folder.history):
        trials = read_trials(History(folder.history).events())
    digest = digest_trials(trials, milestones)
    # The last event was written when it happened, so this is how far the driver's clock is ahead.
    ahead = max(map(_find_last_event, trials.values()), default=0.0) - history[1]
    last_heard = tuple(heard - max(0.0, ahead) for heard in digest.last_heard)
    return replace(digest, last_heard=last_heard)


def digest_trials(trials: Mapping[int, TrialRecord], milestones: Sequence[float]) -> HistoryDigest:
    """Gather the weights that the trials of a study name; times are by the driver's clock."""
    best = (
        choose_best(trials.values(), milestone, higher_is_better)
        for milestone in milestones
        for higher_is_better in _find_directions(trials.values())
    )
    under_way = [trial for trial in trials.values() if trial.end is None]
    levels = [level for trial in trials.values() for level in trial.levels]
    used = (use.key for level in levels for use in level.uses)
    return HistoryDigest(
        known=frozenset([*used, *(level.lineage.weights for level in levels)]),
        best=frozenset(candidate.result.lineage.weights for candidate in best if candidate),
        last=frozenset(t.levels[-1].lineage.weights for t in under_way if t.levels),
        last_heard=tuple(_find_last_event(trial) for trial in under_way),
        num_trials=len(trials),
    )


def _find_directions(trials: Collection[TrialRecord]) -> tuple[bool, ...]:
    """Tell from the reports if a higher metric is better; both where they do not tell."""
    reports = [event.report for trial in trials for event in trial.reports.values()]
    points = {(report.metric, report.retention) for report in reports}
    # Level 0 is the dense model, whose retention is 1 by definition.
    points |= {(level.metric, 1.0) for t in trials for level in t.levels if level.level == 0}
    (_, lowest), (_, highest) = min(points, default=(0.0, 0.0)), max(points, default=(0.0, 0.0))
    return (True, False) if lowest == highest else (highest > lowest,)


def _find_last_event(trial: TrialRecord) -> float:
    last = trial.end or trial.start
    return max([last.time, *(event.time for event in trial.reports.values())])


def _find_use(digest: HistoryDigest, started: float) -> float:
    """Return since when a running study's trials have used weights that no file names yet.

    Trials that an earlier session has left unfinished use nothing before this session began. Behind
    a URI nothing shows when an entry was last found, so all may be in use.
    """
    if math.isinf(started):
        return started
    silent_since = (max(heard, started) for heard in digest.last_heard)
    return min(silent_since, default=math.inf) - CLOCK_SLACK_S


def _is_study(folder: StudyFolder) -> bool:
    return folder.environment.exists() or folder.history.exists() or folder.masks.exists()


def _is_over(folder: StudyFolder, digest: HistoryDigest) -> bool:
    """Tell whether nobody goes on with a study: it has its leaderboard, or is only kept."""
    if _SET_ASIDE.fullmatch(folder.name) or not folder.environment.exists():
        return True
    if digest.last_heard or not digest.num_trials:
        return False
    try:
        counted = sum(read_leaderboard(folder).outcomes.values())
    except StorageError:
        return False
    return counted == digest.num_trials


def _find_shared(folder: StudyFolder, entries: Sequence[EntrySummary]) -> Iterator[str]:
    """Yield the keys of the weights that trials of a study's checkpoint and data share."""
    with _reading(folder, folder.environment):
        inputs = json.loads(folder.environment.read_text()).get("inputs")
        if inputs is None:  # it has not begun to train
            return
        data, model = inputs["data"], (inputs["checkpoint"], inputs["precision"])
    tasks = {
        entry.key
        for entry in entries
        if read_stage(entry) == "prepare" and _setting(entry, "source") == data
    }
    for entry in entries:
        if (
            read_stage(entry) in SHARED_STAGES
            and (_setting(entry, "checkpoint"), _setting(entry, "precision")) == model
            and _part(entry, "inputs").get("task") in tasks
        ):
            yield entry.key


def read_stage(entry: EntrySummary) -> str:
    """Return the stage that made an entry; "other" where its record does not say."""
    return str(entry.record.get("stage", "other"))


def _setting(entry: EntrySummary, name: str) -> Any:
    return _part(entry, "settings").get(name)


def _part(entry: EntrySummary, name: str) -> Mapping[str, Any]:
    value = entry.record.get(name)
    return value if isinstance(value, Mapping) else {}


def _read_library(folder: StudyFolder) -> Iterator[str]:
    """Yield the keys of all entries that the evidence of a study's masks names."""
    for path in sorted(folder.masks.glob("*/evidence.json")):
        with _reading(folder, path):
            lineage = json.loads(path.read_text())["lineage"]
            keys = (lineage["weights"], lineage["evaluation"], *lineage["evidence"].values())
        yield from (str(key) for key in keys if key)


@contextmanager
def _reading(folder: StudyFolder, path: Path) -> Iterator[None]:
    """Turn what can go wrong with a file of a study into a `StorageError`."""
    try:
        yield
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        StorageError,
        yaml.YAMLError,
    ) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise StorageError(
            f"study {folder.reference}: {path.relative_to(folder.root)} cannot be read "
            f"({reason}), so nothing tells what the study needs of the store, and nothing is "
            "removed; restore the file, or remove the study"
        ) from error
