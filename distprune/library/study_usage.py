"""What a study's stages cost, and what sharing them has saved."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from distprune.core.atomic_file import write_file
from distprune.library.history import History, TrialRecord, read_trials
from distprune.library.study_folder import StudyFolder
from distprune.trial.usage import StageUse, Usage, count_hosts, sum_up


def record_shared(path: Path, uses: Iterable[StageUse]) -> tuple[StageUse, ...]:
    """Write down the stages that the driver ran for all trials, and return all that it ever has.

    A stage that an earlier session of the study computed stays computed.
    """
    noted = {use.key: use for use in read_shared(path)}
    for use in uses:
        if use.is_computed or use.key not in noted:
            noted[use.key] = use
    shared = tuple(noted.values())
    write_file(path, json.dumps([asdict(use) for use in shared], indent=1) + "\n")
    return shared


def read_shared(path: Path) -> tuple[StageUse, ...]:
    """Read what `record_shared` wrote; nothing where there is no file."""
    if not path.exists():
        return ()
    return tuple(StageUse(**values) for values in json.loads(path.read_text()))


def measure_usage(folder: StudyFolder) -> Usage:
    """Add up what the study in a folder has cost so far; see `sum_up_study`."""
    return measure_costs(folder)[0]


def measure_costs(folder: StudyFolder) -> tuple[Usage, dict[str, int]]:
    """Return what `measure_usage` does, and how many stages each host has computed."""
    trials = read_trials(History(folder.history).events()).values()
    shared = read_shared(folder.shared_stages)
    return sum_up_study(shared, trials), count_hosts([*shared, *_list_uses(trials)])


def sum_up_study(shared: Iterable[StageUse], trials: Iterable[TrialRecord]) -> Usage:
    """Add up what a study computed, and what it would have computed beyond that without sharing.

    Args:
        shared: Stages that the driver ran for all trials.
        trials: The study's trials; their reported levels count.

    Returns:
        The sums; `seconds_saved` is the wall time of every trial's stages, one by one, less that of
        the stages that this study computed.
    """
    by_driver = sum_up(use for use in shared if use.is_computed)
    needed = _list_uses(trials)
    by_trials = sum_up(needed)
    seconds = by_driver.seconds_computed + by_trials.seconds_computed
    num_computed = by_driver.num_computed + by_trials.num_computed
    return Usage(
        num_computed=num_computed,
        num_reused=max(0, len(needed) - num_computed),
        seconds_computed=seconds,
        seconds_saved=max(0.0, sum(use.seconds for use in needed) - seconds),
        bytes_written=by_driver.bytes_written + by_trials.bytes_written,
    )


def _list_uses(trials: Iterable[TrialRecord]) -> list[StageUse]:
    return [use for trial in trials for level in trial.levels for use in level.uses]
