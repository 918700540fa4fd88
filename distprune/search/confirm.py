"""Confirming a study: are its best masks better than controls of the same size, or were they lucky?

A study's best mask was chosen because it did well once. So it is trained anew with seeds that the
study has not used, beside controls of exactly its size, all of them in the same way: by the trial's
own recipe, in one training from its rewinding point (1.0 where the trial continued from level to
level). A seed decides the dense fine-tuning, the head, the order of the data and dropout. All are
measured on the report split, on which nothing was chosen.

Controls: masks drawn at random (others for each seed), masks drawn from what the best mask removes
(where that fits), and the masks that the same trial would have found with one setting changed: with
the fine-tuned importance alone (λ = 0), the pre-trained alone (λ = 1), magnitudes of weights.

Seeds are spent where they decide. After the third and each further seed every comparison is looked
at; where its interval excludes zero it is settled, and its control trains no more. The looks share
the error of 5 %. Intervals are two-way bootstraps over seeds and examples (`core.bootstrap`), each
for its comparison alone: they are not corrected for the number of comparisons.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distprune.core.mask import Mask
from distprune.core.selection import ROUNDING
from distprune.errors import ConfigError, StorageError
from distprune.library.confirmation import write_confirmation
from distprune.library.control_trials import Control
from distprune.library.forgetting import locate_forgetting, write_forgetting
from distprune.library.history import History, TrialRecord, read_trials
from distprune.library.leaderboard import Leaderboard, LeaderboardRow, read_leaderboard
from distprune.library.replication import choose_starting_point
from distprune.library.stability import locate_stability, write_stability
from distprune.library.study_folder import StudyFolder
from distprune.search.comparison import BestMask
from distprune.search.confirmer import Confirmer, ConfirmObserver, Trust
from distprune.search.driver_lease import drive_study
from distprune.search.stage_session import open_stage_session
from distprune.search.study_file import Study, check_study, read_yaml
from distprune.store.store import Store
from distprune.trial.context import TrialContext
from distprune.trial.resolve import resolve_context
from distprune.trial.spec import Precision, TrialSpec
from distprune.trial.stages import TrialStages


@dataclass(frozen=True)
class ConfirmRequest:
    """What is to be confirmed.

    Attributes:
        folder: The study.
        num_seeds: Most seeds of a comparison, >= 2.
        controls: What the best masks are compared with, beside the dense model.
        milestones: Sparsities whose best masks are confirmed; empty = all of the study.
        address: Address of a Ray cluster; None starts one on this machine.
        verbose: Let Ray's and the workers' output through.
    """

    folder: StudyFolder
    num_seeds: int = 5
    controls: tuple[Control, ...] = tuple(Control)
    milestones: tuple[float, ...] = ()
    address: str | None = None
    verbose: bool = False


def run_confirmation(request: ConfirmRequest, observer: ConfirmObserver) -> Trust:
    """Train the best masks of a study and their controls with fresh seeds; write what is found.

    A confirmation that was killed goes on where it was: every training is in the store.

    Raises:
        InputError: The request, the study, its data or its storage cannot be used.
        StudyExistsError: A driver is working on the study.
    """
    folder = request.folder
    check_num_seeds(request.num_seeds)
    choose_rows(read_leaderboard(folder), request.milestones)
    with drive_study(folder, observer.on_phase) as drive:
        rows = choose_rows(read_leaderboard(folder), request.milestones)
        bests = find_best_masks(folder, rows)
        study = check_study(read_yaml(folder.configuration))
        store = folder.open_store()
        store.check_writable()
        observer.on_phase("Reading checkpoint and data")
        context = resolve_inputs(folder, study, bests, store)
        observer.on_phase("Starting Ray")
        resources = study.spec.resources
        with open_stage_session(store, resources, request.address, request.verbose) as session:
            # The study's own arithmetic, also where this machine would choose another.
            precision = read_inputs(folder).get("precision", study.base.precision)
            precision = session.resolve_precision(Precision(precision))
            stages = TrialStages(
                study.base, replace(context, precision=precision), store, session.executor
            )
            trust = Confirmer(
                study=folder.name,
                stages=stages,
                num_seeds=request.num_seeds,
                controls=request.controls,
                run_jobs=session.run,
                observer=observer,
            ).run(bests)
        write_trust(folder, trust)
        drive.save()
    return trust


def write_trust(folder: StudyFolder, trust: Trust) -> None:
    """Write what was found; what could not be measured is not left from an earlier confirmation.

    Raises:
        StorageError: A file cannot be written; each one is whole or as it was.
    """
    write_confirmation(folder, trust.confirmation)
    if trust.stability is None:
        locate_stability(folder).unlink(missing_ok=True)
    else:
        write_stability(folder, trust.stability)
    if trust.forgetting is None:
        locate_forgetting(folder).unlink(missing_ok=True)
    else:
        write_forgetting(folder, [trust.forgetting])


def check_num_seeds(num_seeds: int) -> None:
    """Refuse fewer seeds than an interval over seeds needs.

    Raises:
        ConfigError: There are fewer than two.
    """
    if num_seeds < 2:
        raise ConfigError(
            f"seeds: {num_seeds}; an interval over seeds needs two at least; ask for 2 or more, 5 "
            "if in doubt"
        )


def choose_rows(
    leaderboard: Leaderboard, milestones: Sequence[float]
) -> tuple[LeaderboardRow, ...]:
    """Return the leaderboard's rows at `milestones`; all of them where none is named.

    Raises:
        ConfigError: The study has no best mask at one of them.
    """
    for milestone in milestones:
        if not any(_is_at(row, milestone) for row in leaderboard.rows):
            known = ", ".join(f"{row.milestone:g}" for row in leaderboard.rows)
            raise ConfigError(
                f"milestone: {milestone:g}; study {leaderboard.study!r} has best masks at {known}; "
                "choose of these"
            )
    return tuple(
        row
        for row in leaderboard.rows
        if not milestones or any(_is_at(row, milestone) for milestone in milestones)
    )


def find_best_masks(folder: StudyFolder, rows: Sequence[LeaderboardRow]) -> list[BestMask]:
    """Return the masks of the leaderboard's rows; rows of one level are one mask.

    Raises:
        StorageError: The history does not have a level that the leaderboard names.
    """
    trials = read_trials(History(folder.history).events())
    places = dict.fromkeys((row.trial, row.level) for row in rows)
    return [
        BestMask(
            rows=tuple(row for row in rows if (row.trial, row.level) == place),
            mask=_find_level(folder, trials, *place),
            spec=TrialSpec.model_validate(trials[place[0]].start.spec),
        )
        for place in places
    ]


def resolve_inputs(
    folder: StudyFolder, study: Study, bests: Sequence[BestMask], store: Store
) -> TrialContext:
    """Read checkpoint and data, and check that they are what the study began with.

    Raises:
        InputError: They cannot be used, or have changed since.
    """
    points = {choose_starting_point(best.spec.pruning) for best in bests}
    context = resolve_context(study.base, store, sorted(points), uses_gpu=False)
    found = {
        "checkpoint": context.checkpoint.fingerprint,
        "data": context.task.source_fingerprint,
    }
    inputs = read_inputs(folder)
    changed = [name for name, value in found.items() if inputs.get(name, value) != value]
    if changed:
        raise ConfigError(
            f"study {folder.name!r}: {' and '.join(changed)} changed since it began, so its masks "
            "cannot be confirmed; restore what it was, or search again"
        )
    return context


def read_inputs(folder: StudyFolder) -> dict[str, Any]:
    """Return what the study's names stood for when it began: fingerprints and arithmetic.

    Raises:
        StorageError: They cannot be read.
    """
    try:
        return dict(json.loads(folder.environment.read_text()).get("inputs", {}))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise StorageError(
            f"study {folder.reference}: its environment.json cannot be read ({error}); restore the "
            "file"
        ) from error


def _is_at(row: LeaderboardRow, milestone: float) -> bool:
    return abs(row.milestone - milestone) < ROUNDING


def _find_level(
    folder: StudyFolder, trials: Mapping[int, TrialRecord], trial: int, level: int
) -> Mask:
    record = trials.get(trial)
    for result in record.levels if record else ():
        if result.level == level:
            return result.mask
    raise StorageError(
        f"study {folder.reference}: its history lacks level {level} of trial {trial}, which the "
        "leaderboard names; run `distprune search` again and both are written anew"
    )
