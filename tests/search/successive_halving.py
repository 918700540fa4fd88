"""Asynchronous successive halving over milestones, written down a second time.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", in the form in which a
trial is stopped rather than promoted: at a rung it goes on if its objective is at least the
quantile 1 - 1/η of those that were there before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class SuccessiveHalving:
    """Decides which trials go on.

    Attributes:
        reduction_factor: η; one in so many trials goes on.
        grace_milestones: The first rung.
        num_milestones: The last milestone, at which every trial ends.
        rungs: For each rung's milestone the objectives seen there, in order.
    """

    reduction_factor: int
    grace_milestones: int
    num_milestones: int
    rungs: dict[int, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.rungs = {}
        milestone = min(self.grace_milestones, self.num_milestones)
        while milestone <= self.num_milestones:
            self.rungs[milestone] = []
            milestone *= self.reduction_factor

    def goes_on(self, milestone: int, objective: float) -> bool:
        """Note what a trial reports, and decide."""
        if milestone == self.num_milestones:
            return False
        if milestone not in self.rungs:
            return True
        before = sorted(self.rungs[milestone])
        self.rungs[milestone].append(objective)
        return not before or objective >= find_quantile(before, 1 - 1 / self.reduction_factor)


def find_quantile(ordered: list[float], share: float) -> float:
    """Interpolate linearly between the two nearest of ordered values."""
    position = share * (len(ordered) - 1)
    low, high = math.floor(position), math.ceil(position)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])
