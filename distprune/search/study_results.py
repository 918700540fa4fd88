"""The end of a study: its best models, measured on the report split, and its library of masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from distprune.core.cost import measure_sparsities
from distprune.core.retention import Reference
from distprune.errors import StudyFailedError
from distprune.library.history import Outcome, TrialRecord
from distprune.library.leaderboard import Candidate, Leaderboard, LeaderboardRow, choose_best
from distprune.library.mask_library import write_library
from distprune.library.study_folder import StudyFolder
from distprune.methods.ticket import WeightsReference
from distprune.search.study_file import Study
from distprune.trial.stages import TrialStages


def write_results(
    study: Study,
    folder: StudyFolder,
    trials: Mapping[int, TrialRecord],
    stages: TrialStages,
    reference: Reference,
) -> Leaderboard:
    """Choose the best at each milestone, evaluate them on the report split, write the library.

    Raises:
        StudyFailedError: No trial reached a milestone.
        StorageError: The library cannot be written.
    """
    best = {
        milestone: candidate
        for milestone in study.milestones
        if (candidate := choose_best(trials.values(), milestone, reference.higher_is_better))
    }
    if not best:
        raise StudyFailedError(_explain_failure(study, folder, trials))
    facts = stages.context.task
    # The evaluations do not depend on each other; the broker starts as many as there are cores for.
    with ThreadPoolExecutor(len(best) + 1) as pool:
        dense = pool.submit(lambda: stages.evaluate(stages.dense(), "report").metric)
        rows = [
            pool.submit(_make_row, milestone, candidate, stages, reference)
            for milestone, candidate in best.items()
        ]
    leaderboard = Leaderboard(
        study=study.spec.name,
        metric=facts.metric,
        higher_is_better=facts.higher_is_better,
        dense={
            "search": reference.dense,
            "report": dense.result(),
        },
        floor=dict(facts.floors),
        outcomes=dict(Counter(str(r.end.outcome) for r in trials.values() if r.end)),
        pretrained_objective=_name_objective(trials),
        rows=[row.result() for row in rows],
    )
    write_library(folder, leaderboard, best, stages.context)
    return leaderboard


def _name_objective(trials: Mapping[int, TrialRecord]) -> str | None:
    """Return what the pre-trained importance of the trials was measured with; None = not used."""
    objectives = {
        level.lineage.evidence.pretrained_objective
        for trial in trials.values()
        for level in trial.levels
    }
    return ", ".join(sorted(name for name in objectives if name)) or None


def _make_row(
    milestone: float, candidate: Candidate, stages: TrialStages, reference: Reference
) -> LeaderboardRow:
    result = candidate.result
    weights = WeightsReference(result.lineage.weights, result.lineage.weights_file)
    return LeaderboardRow(
        milestone=milestone,
        trial=candidate.trial.number,
        level=result.level,
        search_metric=result.metric,
        report_metric=stages.evaluate_weights(weights, result.mask, "report").metric,
        retention=reference.retention(result.metric),
        sparsities=measure_sparsities(stages.shape, result.mask, stages.num_tokens),
        parameters=dict(candidate.trial.start.parameters),
    )


def _explain_failure(study: Study, folder: StudyFolder, trials: Mapping[int, TrialRecord]) -> str:
    failures = [r.end for r in trials.values() if r.end and r.end.outcome is Outcome.FAILED]
    diverged = sum(1 for r in trials.values() if r.end and r.end.outcome is Outcome.DIVERGED)
    reason = failures[0].message.splitlines()[-1] if failures else "all trials diverged"
    return (
        f"study {study.spec.name!r}: no trial reached a milestone ({len(failures)} failed, "
        f"{diverged} diverged; the first: {reason}); see {folder.history}"
    )
