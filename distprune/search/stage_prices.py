"""What each stage of a study costs, from what its kind took in a timing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from distprune.core.cost import encoder_cost
from distprune.core.mask import Mask
from distprune.core.selection import ROUNDING
from distprune.search.planned_trials import AskedStages, AskedTrial
from distprune.search.simulation import PlannedLevel, PlannedStudy, PricedStage
from distprune.trial.context import TrialContext
from distprune.trial.reporter import count_levels_left
from distprune.trial.request import StageRequest
from distprune.trial.stage_kinds import (
    StageKind,
    count_examples,
    count_lengths,
    find_kind,
    find_mask,
)
from distprune.trial.stage_timing import StageTiming, Timings


@dataclass(frozen=True)
class PriceList:
    """Prices of stages: what a kind takes in any case, for each new length, and for each example.

    The last lie between the dense model's and the compact one's, by the multiply-accumulates that a
    mask removes.

    Attributes:
        timings: By kind of stage.
        context: Facts of the study.
        lengths: Different lengths of the batches of each split.
        target: A mask of the size that the compact model was timed with.
        shared_slots: Ordinary stages that one takes the cores of which all trials wait for.
    """

    timings: Mapping[StageKind, StageTiming]
    context: TrialContext
    lengths: Mapping[str, int]
    target: Mask
    shared_slots: int

    def price(self, request: StageRequest) -> PricedStage:
        """Return a stage with its price."""
        kind = find_kind(request)
        timing = self.timings[kind]
        share = self._share_removed(find_mask(request))
        example_s = _interpolate(timing.dense_s, timing.target_s, share)
        num_examples = count_examples(request, self.context.task.counts)
        num_lengths = count_lengths(request, self.lengths, num_examples)
        return PricedStage(
            key=request.key,
            stage=request.stage,
            kind=str(kind),
            seconds=timing.fixed_s + num_lengths * timing.length_s + num_examples * example_s,
            slots=self.shared_slots if request.is_shared else 1,
            num_bytes=_interpolate(timing.dense_bytes, timing.target_bytes, share)
            * self._count_copies(request),
        )

    def price_report(self, evaluation: StageRequest) -> PricedStage:
        """Return the evaluation of the same model on the report split, with its price."""
        settings = {**evaluation.settings, "split": "report"}
        return self.price(replace(evaluation, settings=settings))

    def _share_removed(self, mask: Mask | None) -> float:
        """Return what a mask removes, as a share of what the target's mask removes."""
        if mask is None:
            return 0.0
        shape, num_tokens = self.context.shape, self.context.num_tokens
        dense, target, own = (
            encoder_cost(shape, kept, num_tokens).macs
            for kept in (Mask.dense(shape), self.target, mask)
        )
        return (dense - own) / (dense - target)

    def _count_copies(self, request: StageRequest) -> int:
        """Count the copies of its weights that a stage stores; dense fine-tuning has snapshots."""
        points = self.context.rewinding_points
        inner = sum(0.0 < point < 1.0 for point in points)
        return 1 + inner if request.stage == "dense" else 1


def price_study(
    asked: AskedStages, prices: PriceList, milestones: tuple[float, ...]
) -> tuple[PlannedStudy, ...]:
    """Return each round of a study, with the prices of its stages.

    Args:
        asked: The stages.
        prices: What they cost.
        milestones: Sparsities of the study's grid, increasing.
    """
    reference = next(request for request in asked.shared if request.stage == "evaluate")
    shared, report = tuple(map(prices.price, asked.shared)), prices.price_report(reference)
    return tuple(
        PlannedStudy(
            shared=shared,
            trials=tuple(tuple(_price_levels(trial, prices, milestones)) for trial in trials),
            qualities=tuple(trial.quality for trial in trials),
            report=report,
        )
        for trials in asked.rounds
    )


def _price_levels(
    trial: AskedTrial, prices: PriceList, milestones: tuple[float, ...]
) -> Iterator[PlannedLevel]:
    sparsities = trial.spec.pruning.sparsities
    num_reached = 0
    for level, requests in enumerate(trial.levels):
        sparsity = sparsities[level - 1] if level else 0.0
        reached = sum(milestone <= sparsity + ROUNDING for milestone in milestones)
        yield PlannedLevel(
            stages=tuple(map(prices.price, requests)),
            report=prices.price_report(requests[-1]),
            milestones=tuple(range(num_reached + 1, reached + 1)),
            levels_left=count_levels_left(sparsities, milestones, max(0, level - 1)),
        )
        num_reached = reached


def combine_timings(parts: Sequence[Timings]) -> Timings:
    """Return the medians of what several processes timed side by side, and the slowest start.

    A process that has run a stage before has begun already.
    """
    kinds = {
        kind: StageTiming(
            fixed_s=median(part.kinds[kind].fixed_s for part in parts),
            length_s=median(part.kinds[kind].length_s for part in parts),
            dense_s=median(part.kinds[kind].dense_s for part in parts),
            target_s=median(part.kinds[kind].target_s for part in parts),
            dense_bytes=parts[0].kinds[kind].dense_bytes,
            target_bytes=parts[0].kinds[kind].target_bytes,
        )
        for kind in parts[0].kinds
    }
    slowest_s = max(part.start_s for part in parts)
    return Timings(kinds, slowest_s, max(part.total_s for part in parts))


def _interpolate(dense: float, target: float, share: float) -> float:
    return dense + (target - dense) * share
