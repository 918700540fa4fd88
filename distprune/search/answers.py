"""Trials that are known already: every stage of theirs is stored, so no trial is spent on them."""

from __future__ import annotations

from distprune.errors import DivergedTrialError
from distprune.search.trainable import TrialSurroundings
from distprune.trial.executor import NotStoredError, StoredExecutor
from distprune.trial.reporter import report_milestones
from distprune.trial.results import MilestoneReport
from distprune.trial.runner import run_trial
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import TrialStages


def answer_from_store(
    spec: TrialSpec, surroundings: TrialSurroundings
) -> tuple[MilestoneReport, ...] | None:
    """Return what a trial would report, if nothing of it has to be computed; else None.

    Two configurations that keep the same units at every level ask for the same stages; so do equal
    ones of different studies. A stage that is missing ends the look at once.
    """
    executor = StoredExecutor(surroundings.store)
    stages = TrialStages(spec, surroundings.context, surroundings.store, executor)
    try:
        return tuple(
            report_milestones(
                run_trial(stages),
                surroundings.milestones,
                surroundings.reference,
                surroundings.objective,
            )
        )
    except (NotStoredError, DivergedTrialError):
        return None
