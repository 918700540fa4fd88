"""A best mask beside its controls while seeds are being spent on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from distprune.core.bootstrap import Resampled, bootstrap_difference
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.library.confirmation import BEST, DENSE, Arm, ConfirmedMask, Difference
from distprune.library.leaderboard import LeaderboardRow
from distprune.library.replication import describe_training
from distprune.trial.spec import TrialSpec

BOOTSTRAP_SEED = 0
"""Seed of the draws of seeds: the same data give the same interval."""


@dataclass(frozen=True)
class BestMask:
    """A mask of the leaderboard.

    Attributes:
        rows: The leaderboard's rows that it is the best of, milestones increasing.
        spec: The trial that found it.
        mask: The mask.
    """

    rows: tuple[LeaderboardRow, ...]
    spec: TrialSpec
    mask: Mask

    @property
    def trial(self) -> int:
        """Number of its trial."""
        return self.rows[0].trial

    @property
    def level(self) -> int:
        """Its level in that trial."""
        return self.rows[0].level

    @property
    def milestones(self) -> tuple[float, ...]:
        """Sparsities at which it is the best of the study."""
        return tuple(row.milestone for row in self.rows)


@dataclass(frozen=True)
class PlannedArm:
    """A mask for each seed, or why there is none.

    Attributes:
        name: Name of the arm.
        draw: Returns the mask of a seed; None where the arm is not trained.
        note: Why it is not trained, or what else has to be known.
    """

    name: str
    draw: Callable[[int], Mask] | None
    note: str = ""

    @classmethod
    def fixed(cls, name: str, mask: Mask, note: str = "") -> PlannedArm:
        """Return an arm with the same mask for all seeds."""
        return cls(name, lambda _: mask, note)


@dataclass
class _Measured:
    """What is known of an arm so far; seeds in order."""

    metrics: dict[int, Resampled] = field(default_factory=dict)
    difference: Difference | None = None
    problem: str | None = None


class Comparison:
    """Decides which arms need another seed, and what the difference of two arms is.

    Args:
        best: The mask that is confirmed.
        controls: Its controls.
        seeds: All seeds that may be spent, in their order.
        confidence: Of each interval.
        higher_is_better: Direction of the metric.
    """

    def __init__(
        self,
        best: BestMask,
        controls: Sequence[PlannedArm],
        seeds: Sequence[int],
        confidence: float,
        higher_is_better: bool,
    ) -> None:
        dense = Mask({kind: best.mask[kind] | True for kind in UnitKind})
        self.best = best
        self._arms: Mapping[str, PlannedArm] = {
            arm.name: arm
            for arm in (
                PlannedArm.fixed(BEST, best.mask),
                PlannedArm.fixed(DENSE, dense),
                *controls,
            )
        }
        self._seeds = tuple(seeds)
        self._confidence = confidence
        self._sign = 1.0 if higher_is_better else -1.0
        self._measured = {name: _Measured() for name in self._arms}

    def list_open(self) -> list[str]:
        """Return the arms that need another seed.

        The best mask and the dense model go on as long as a control is not settled; where no
        control can be trained at all, they go on to the last seed.
        """
        if self._measured[BEST].problem is not None:
            return []
        controls = [
            name for name, arm in self._arms.items() if arm.draw and name not in (BEST, DENSE)
        ]
        unsettled = [name for name in controls if not self._is_done(name)]
        if controls and not unsettled:
            return []
        going_on = [name for name in (BEST, DENSE) if self._measured[name].problem is None]
        return [*going_on, *unsettled]

    def draw(self, name: str, seed: int) -> Mask:
        """Return the mask of an arm that is trained, with a seed."""
        draw = self._arms[name].draw
        if draw is None:
            raise ValueError(f"arm: {name!r} has no mask")
        return draw(seed)

    def record(self, name: str, seed: int, metric: Resampled) -> None:
        """Take note of what an arm came to with a seed."""
        self._measured[name].metrics[seed] = metric

    def give_up(self, name: str, problem: str) -> None:
        """Take note that an arm cannot be trained; it gets no further seed and no interval."""
        self._measured[name].problem = problem

    def look(self) -> None:
        """Compare every arm that is not settled with the best mask, over the seeds of both."""
        for name, found in self._measured.items():
            if name == BEST or self._is_done(name):
                continue
            seeds = [seed for seed in self._list_seeds(BEST) if seed in found.metrics]
            if len(seeds) >= 2 and self._measured[BEST].problem is None:
                found.difference = self._compare(name, seeds)

    def conclude(self) -> ConfirmedMask:
        """Return what has been found."""
        first = self.best.rows[0]
        return ConfirmedMask(
            milestones=self.best.milestones,
            trial=self.best.trial,
            level=self.best.level,
            search_metric=first.search_metric,
            report_metric=first.report_metric,
            training=describe_training(self.best.spec.pruning),
            seeds=tuple(self._list_seeds(BEST)),
            arms=tuple(self._conclude_arm(arm) for arm in self._arms.values()),
        )

    def _is_done(self, name: str) -> bool:
        found = self._measured[name]
        is_settled = found.difference is not None and found.difference.is_settled
        return found.problem is not None or (is_settled and name != DENSE)

    def _list_seeds(self, name: str) -> list[int]:
        return [seed for seed in self._seeds if seed in self._measured[name].metrics]

    def _compare(self, name: str, seeds: Sequence[int]) -> Difference:
        best, other = (
            [self._measured[arm].metrics[seed] for seed in seeds] for arm in (BEST, name)
        )
        pair = (best, other) if self._sign > 0 else (other, best)
        interval = bootstrap_difference(*pair, self._confidence, BOOTSTRAP_SEED)
        return Difference(
            interval.estimate, interval.low, interval.high, interval.confidence, len(seeds)
        )

    def _conclude_arm(self, arm: PlannedArm) -> Arm:
        found = self._measured[arm.name]
        mask = arm.draw(self._seeds[0]) if arm.draw else None
        notes = (found.problem, arm.note)
        return Arm(
            name=arm.name,
            heads=mask.num_kept(UnitKind.HEAD) if mask else None,
            neurons=mask.num_kept(UnitKind.NEURON) if mask else None,
            metrics=tuple(found.metrics[seed].observed for seed in self._list_seeds(arm.name)),
            difference=None if found.problem else found.difference,
            note="; ".join(note for note in notes if note),
        )
