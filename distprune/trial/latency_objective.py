"""The objective of a study that has a latency to meet: the best retention within it."""

from __future__ import annotations

from dataclasses import dataclass

from distprune.core.latency_table import LayerLatencies
from distprune.core.mask import Mask


@dataclass(frozen=True)
class LatencyObjective:
    """Rates a level by its retention and by its predicted latency.

    A trial's objective after a milestone is the best rating of its levels so far, level 0 left out,
    so it never falls along a trial. Once a level meets the limit it is the best retention of those
    that do; before, it is negative, whatever the retention.

    Attributes:
        limit: Latency to meet, in seconds.
        latencies: Predict the latency of a mask.
    """

    limit: float
    latencies: LayerLatencies

    def rate(self, mask: Mask, retention: float) -> float:
        """Return the rating of a level, higher is better; it never falls as latency falls.

            latency <= limit:  max(retention, 0)
            latency >  limit:  min(max(retention, 0), 1) - 1 - excess

        with excess = latency / limit - 1. Above the limit, at equal retention the nearer level is
        the better one, and a percent of the limit counts as much as a percent of retention: trials
        at one milestone have removed equally many units, so that their latencies differ by little
        more than noise, which alone should not decide between them.
        """
        latency = self.latencies.predict(mask)
        if latency <= self.limit:
            return max(retention, 0.0)
        return min(max(retention, 0.0), 1.0) - latency / self.limit
