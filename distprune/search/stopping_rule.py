"""The study's own rule of stopping, for trials that are only made up."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from ray.tune.schedulers import TrialScheduler

from distprune.search.simulation import GoesOn
from distprune.search.study_file import Study
from distprune.search.tune_adapters import MilestoneASHA


def make_rule(study: Study, comparable: int, qualities: Sequence[float]) -> GoesOn:
    """Return the study's own rule of stopping, for trials of which one is better throughout.

    Args:
        study: The study.
        comparable: The first milestone at which its objective can tell trials apart.
        qualities: How good each trial is, higher is better; read when the rule is asked.
    """
    stopping, num_milestones = study.spec.stopping, len(study.milestones)
    if stopping is None:
        return lambda number, milestone: True
    grace = max(stopping.grace_milestones, comparable)
    asha = MilestoneASHA(stopping.model_copy(update={"grace_milestones": grace}), num_milestones)

    def goes_on(number: int, milestone: int) -> bool:
        if milestone == num_milestones:
            return False
        trial = SimpleNamespace(trial_id=str(number))
        action = asha._brackets[0].on_result(trial, milestone, qualities[number])
        return bool(action != TrialScheduler.STOP)

    return goes_on
