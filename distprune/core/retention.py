"""Retention: how much of the dense model's advantage over a constant predictor is left."""

from __future__ import annotations

import math
from dataclasses import dataclass

from distprune.errors import DivergedTrialError


@dataclass(frozen=True)
class Reference:
    """What a study's metrics are measured against; the same for all its trials.

    Attributes:
        dense: Metric of the dense fine-tuned model on the search split.
        floor: Metric of the constant predictor on the search split.
        higher_is_better: Direction of the metric.
    """

    dense: float
    floor: float
    higher_is_better: bool = True

    @property
    def is_usable(self) -> bool:
        """Say whether the dense model is better than the constant predictor."""
        advantage = self.dense - self.floor
        return math.isfinite(advantage) and (
            advantage > 0 if self.higher_is_better else advantage < 0
        )

    def retention(self, metric: float) -> float:
        """Return (metric - floor) / (dense - floor): 1 = as good as dense, 0 = constant predictor.

        The direction of the metric cancels: both differences change sign with it.

        Raises:
            DivergedTrialError: The metric is not finite.
        """
        if not math.isfinite(metric):
            raise DivergedTrialError(f"metric: {metric} is not finite; the model has diverged")
        return (metric - self.floor) / (self.dense - self.floor)
