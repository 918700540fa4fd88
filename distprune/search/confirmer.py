"""The work of a confirmation: controls are found, seeds are spent, scores are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from distprune.core.bootstrap import Resampled
from distprune.core.controls import (
    draw_inverted_mask,
    draw_random_mask,
    explain_no_inverted_mask,
)
from distprune.core.looks import choose_confidence, list_looks
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import DivergedTrialError
from distprune.library.confirmation import Confirmation
from distprune.library.control_trials import (
    Control,
    change_trial,
    explain_no_trial,
    find_masks,
    finds_the_same,
)
from distprune.library.forgetting import Forgetting, correlate_scores
from distprune.library.initial_scores import InitialScores, explain_no_scores, measure_scores
from distprune.library.outputs import count_resamples, read_outputs, resample_outputs
from distprune.library.replication import REPORT, choose_seeds, measure_mask, seed_stages
from distprune.library.stability import Stability, measure_stability
from distprune.search.comparison import BestMask, Comparison, PlannedArm
from distprune.tasks.metrics import METRICS, Metric
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import TrialStages

SAME_MASK = "same mask as the best"
"""Note of a control whose trial finds the best mask itself."""

FIRST_ESTIMATE = 4
"""Trainings before the time left is estimated; the first ones wait for the dense fine-tuning."""

RunJobs = Callable[[Sequence[Callable[[], Any]]], Iterator[tuple[int, Any]]]
"""Runs jobs side by side and yields (number, result) in the order in which they end."""


@dataclass(frozen=True)
class TrainingDone:
    """One mask was trained and measured with one seed.

    Attributes:
        seed: The seed.
        arm: Name of the arm.
        milestones: Sparsities of the mask that is confirmed.
        metric: On the report split; None where the training diverged.
        num_done: Trainings that are done, this one included.
        most: Trainings in all, if no comparison is settled from now on.
        seconds_left: Longest time left by the pace so far; None where too little was computed yet.
    """

    seed: int
    arm: str
    milestones: tuple[float, ...]
    metric: float | None
    num_done: int
    most: int
    seconds_left: float | None


class ConfirmObserver(Protocol):
    """Watches a confirmation; the command line shows it."""

    def on_phase(self, text: str) -> None:
        """Hear what comes next."""

    def on_training(self, training: TrainingDone) -> None:
        """Hear that a training is done."""


@dataclass(frozen=True)
class Trust:
    """What is known of how far a study's masks can be trusted.

    Attributes:
        confirmation: The best masks beside their controls.
        stability: How much masks depend on seed and λ; None where `reason` says why.
        forgetting: How far fine-tuning moves importance; None where `reason` says why.
        reason: Why stability and forgetting were not measured; None where they were.
    """

    confirmation: Confirmation
    stability: Stability | None
    forgetting: Forgetting | None
    reason: str | None


@dataclass
class Confirmer:
    """One confirmation, on whatever runs its jobs.

    Attributes:
        study: Name of the study.
        stages: Stages of any trial of the study, with the study's own seed.
        num_seeds: Most seeds of a comparison, >= 2.
        controls: What the best masks are compared with, beside the dense model.
        run_jobs: Runs the trainings.
        observer: Who watches.
    """

    study: str
    stages: TrialStages
    num_seeds: int
    controls: tuple[Control, ...]
    run_jobs: RunJobs
    observer: ConfirmObserver
    _resampled: dict[str, Resampled] = field(default_factory=dict)

    def run(self, bests: Sequence[BestMask]) -> Trust:
        """Find the controls, spend the seeds, and compare the seeds' scores."""
        task = self.stages.context.task
        seeds = choose_seeds(self.stages.spec.seed, self.num_seeds)
        looks = list_looks(self.num_seeds)
        confidence = choose_confidence(len(looks))
        planned = self._plan_controls(bests)
        comparisons = [
            Comparison(best, controls, seeds, confidence, task.higher_is_better)
            for best, controls in zip(bests, planned, strict=True)
        ]
        self._spend_seeds(comparisons, seeds, looks)
        confirmation = Confirmation(
            study=self.study,
            metric=task.metric,
            higher_is_better=task.higher_is_better,
            most_seeds=self.num_seeds,
            looks=looks,
            confidence=confidence,
            resamples=count_resamples(self._metric),
            examples=task.counts[REPORT],
            masks=tuple(comparison.conclude() for comparison in comparisons),
        )
        return self._compare_scores(confirmation, bests, seeds)

    @property
    def _metric(self) -> Metric:
        return METRICS[self.stages.context.task.metric]

    def _plan_controls(self, bests: Sequence[BestMask]) -> list[list[PlannedArm]]:
        """Run the changed trials, each once, and return the controls of each best mask."""
        wanted: dict[str, tuple[TrialSpec, set[int]]] = {}
        for best in bests:
            for control in self.controls:
                if control.is_trial and self._explain_no_training(best, control) is None:
                    changed = change_trial(best.spec, control)
                    _, levels = wanted.setdefault(changed.model_dump_json(), (changed, set()))
                    levels.add(best.level)
        if wanted:
            self.observer.on_phase(f"Finding masks of control trials: {len(wanted)}")
        names = list(wanted)
        jobs = [partial(self._find_masks, spec, levels) for spec, levels in wanted.values()]
        found = {names[number]: masks for number, masks in self.run_jobs(jobs)}
        return [
            [self._plan_control(best, control, found) for control in self.controls]
            for best in bests
        ]

    def _explain_no_training(self, best: BestMask, control: Control) -> str | None:
        """Say why a control is not trained, as far as that is known before its trial is run."""
        if control is Control.RANDOM:
            return None
        if control is Control.INVERTED:
            reason = explain_no_inverted_mask(best.mask)
            return None if reason is None else f"does not fit: {reason}"
        if finds_the_same(best.spec, control):
            return SAME_MASK
        return explain_no_trial(best.spec, control, self.stages.context.checkpoint)

    def _find_masks(self, spec: TrialSpec, levels: set[int]) -> dict[int, Mask] | str:
        """Run a changed trial with the study's own seed; return its masks, or why it has none."""
        try:
            return find_masks(seed_stages(self.stages, spec, spec.seed), levels)
        except DivergedTrialError as error:
            return f"its trial diverged: {error}"

    def _plan_control(
        self, best: BestMask, control: Control, found: dict[str, dict[int, Mask] | str]
    ) -> PlannedArm:
        reason = self._explain_no_training(best, control)
        if reason is not None:
            return PlannedArm(control, None, reason)
        if control is Control.RANDOM:
            return PlannedArm(control, partial(draw_random_mask, best.mask))
        if control is Control.INVERTED:
            return PlannedArm(control, partial(_draw_inverted, best.mask))
        masks = found[change_trial(best.spec, control).model_dump_json()]
        if isinstance(masks, str):
            return PlannedArm(control, None, masks)
        if masks[best.level] == best.mask:
            return PlannedArm(control, None, SAME_MASK)
        return PlannedArm.fixed(
            control, masks[best.level], compare_sizes(best.mask, masks[best.level])
        )

    def _spend_seeds(
        self, comparisons: Sequence[Comparison], seeds: Sequence[int], looks: Sequence[int]
    ) -> None:
        """Train what is open with the seeds before each look, and look."""
        self.observer.on_phase("Training masks with fresh seeds")
        pace = _Pace()
        begin = 0
        for look in looks:
            trainings = [
                (comparison, name, seed)
                for seed in seeds[begin:look]
                for comparison in comparisons
                for name in comparison.list_open()
            ]
            num_open = sum(len(comparison.list_open()) for comparison in comparisons)
            pace.num_left = len(trainings) + num_open * (len(seeds) - look)
            jobs = [partial(self._measure, *training) for training in trainings]
            for number, measured in self.run_jobs(jobs):
                pace.count(measured.is_computed)
                self._record(*trainings[number], measured, pace)
            for comparison in comparisons:
                comparison.look()
            begin = look

    def _measure(self, comparison: Comparison, name: str, seed: int) -> _Measured:
        """Train and measure an arm with a seed; runs beside others."""
        stages = seed_stages(self.stages, comparison.best.spec, seed)
        try:
            evaluation = measure_mask(stages, comparison.draw(name, seed))
        except DivergedTrialError as error:
            return _Measured(None, f"diverged with seed {seed}: {error}", is_computed=False)
        is_computed = any(use.is_computed for use in stages.log.take())
        return _Measured(evaluation.key, None, is_computed)

    def _record(
        self, comparison: Comparison, name: str, seed: int, measured: _Measured, pace: _Pace
    ) -> None:
        """Give a comparison what a training came to, and tell the observer."""
        metric = None
        if measured.key is None:
            comparison.give_up(name, measured.problem or "")
        else:
            resampled = self._resample(measured.key)
            comparison.record(name, seed, resampled)
            metric = resampled.observed
        self.observer.on_training(
            TrainingDone(
                seed=seed,
                arm=name,
                milestones=comparison.best.milestones,
                metric=metric,
                num_done=pace.num_done,
                most=pace.num_done + pace.num_left,
                seconds_left=pace.seconds_left,
            )
        )

    def _resample(self, key: str) -> Resampled:
        if key not in self._resampled:
            outputs = read_outputs(self.stages.store, key)
            self._resampled[key] = resample_outputs(outputs, self._metric)
        return self._resampled[key]

    def _compare_scores(
        self, confirmation: Confirmation, bests: Sequence[BestMask], seeds: Sequence[int]
    ) -> Trust:
        """Measure stability and forgetting with the seeds that were spent.

        Scores are measured with the settings of the trial of the last, sparsest best mask.
        """
        best = bests[-1]
        trial = seed_stages(self.stages, best.spec, best.spec.seed)
        spent = seeds[: max(len(mask.seeds) for mask in confirmation.masks)]
        reason = explain_no_scores(trial)
        if reason is not None:
            return Trust(confirmation, None, None, reason)
        self.observer.on_phase("Comparing importances across seeds")
        jobs = [partial(_try_scores, seed_stages(self.stages, best.spec, seed)) for seed in spent]
        found: dict[int, InitialScores | None] = dict(self.run_jobs(jobs))
        scores = [scored for number in sorted(found) if (scored := found[number]) is not None]
        if len(scores) < 2:
            return Trust(confirmation, None, None, "the dense model diverged with the fresh seeds")
        milestones = sorted(row.milestone for each in bests for row in each.rows)
        return Trust(
            confirmation,
            stability=measure_stability(trial, best.trial, scores, milestones),
            forgetting=correlate_scores(trial, scores),
            reason=None,
        )


@dataclass(frozen=True)
class _Measured:
    """What a training came to.

    Attributes:
        key: Of its evaluation; None where it diverged.
        problem: Why there is none.
        is_computed: Whether anything of it was computed now, and not found in the store.
    """

    key: str | None
    problem: str | None
    is_computed: bool


@dataclass
class _Pace:
    """How fast trainings are done; those that are found in the store say nothing of it."""

    num_left: int = 0
    num_done: int = 0
    num_computed: int = 0
    started: float = field(default_factory=time.monotonic)

    def count(self, is_computed: bool) -> None:
        """Count one more training as done."""
        self.num_done += 1
        self.num_left -= 1
        self.num_computed += is_computed

    @property
    def seconds_left(self) -> float | None:
        """The time that the trainings that are left take at most."""
        if self.num_computed < FIRST_ESTIMATE:
            return None
        return (time.monotonic() - self.started) / self.num_computed * self.num_left


def compare_sizes(best: Mask, control: Mask) -> str:
    """Say how a control's size differs from the best mask's; empty where it is the same.

    Where heads and neurons are ranked together, masks of one sparsity differ in their numbers.
    """
    pairs = [(control.num_kept(kind), best.num_kept(kind), kind) for kind in UnitKind]
    if all(own == wanted for own, wanted, _ in pairs):
        return ""
    parts = [f"{own} {kind}s where the best has {wanted}" for own, wanted, kind in pairs]
    return f"keeps {' and '.join(parts)}, at the same sparsity in all"


def _draw_inverted(mask: Mask, seed: int) -> Mask:
    inverted = draw_inverted_mask(mask, seed)
    assert inverted is not None  # it was asked before whether there is one
    return inverted


def _try_scores(stages: TrialStages) -> InitialScores | None:
    try:
        return measure_scores(stages)
    except DivergedTrialError:
        return None
