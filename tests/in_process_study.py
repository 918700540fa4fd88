"""A study of one trial, run in this process without Ray, with all that a study leaves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import yaml

from distprune.library.history import (
    Event,
    History,
    MilestoneReached,
    Outcome,
    TrialEnded,
    TrialStarted,
    read_trials,
)
from distprune.library.study_folder import StudyFolder
from distprune.search.study import study_folder
from distprune.search.study_file import load_study
from distprune.search.study_results import write_results
from distprune.store.store import Store
from distprune.trial.executor import InProcessExecutor
from distprune.trial.reporter import report_milestones
from distprune.trial.resolve import measure_reference, resolve_context
from distprune.trial.runner import run_trial
from distprune.trial.stages import TrialStages
from tests.cli.tiny_search import tiny_values


def run_study_in_process(
    storage: Path, checkpoint: Path, task: Path, changes: dict[str, Any] | None = None
) -> StudyFolder:
    """Run the first trial of the tiny search, and leave its library of masks.

    Args:
        storage: Folder of the study and its store.
        checkpoint: The tiny checkpoint.
        task: The tiny task.
        changes: Values of the study file to replace, by dotted name.
    """
    file = storage.parent / "study.yaml"
    file.write_text(yaml.safe_dump(tiny_values(storage, checkpoint, task), sort_keys=False))
    study = load_study(file, changes or {})
    folder = study_folder(study)
    folder.root.mkdir(parents=True)
    folder.configuration.write_text(file.read_text())
    store = Store(str(folder.store))
    context = resolve_context(study.base, store, study.rewinding_points, uses_gpu=False)
    stages = TrialStages(study.base, context, store, InProcessExecutor(store))
    _, reference = measure_reference(stages)
    reports = report_milestones(
        run_trial(stages), study.milestones, reference, study.spec.objective
    )
    events: list[Event] = [
        TrialStarted(0, time.time(), study.base.model_dump(mode="json"), {}, proposal=0)
    ]
    events += [MilestoneReached(0, time.time(), report) for report in reports]
    events.append(TrialEnded(0, time.time(), Outcome.COMPLETED))
    history = History(folder.history)
    for event in events:
        history.append(event)
    write_results(study, folder, read_trials(history.events()), stages, reference)
    return folder
