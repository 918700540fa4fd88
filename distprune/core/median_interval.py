"""The median of repeated measurements, with an interval that assumes nothing about their noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from distprune.errors import ConfigError

CONFIDENCE = 0.95

MIN_COUNT = 6
"""Measurements that it takes: even the smallest and the largest of five cover less."""


@dataclass(frozen=True)
class MedianInterval:
    """A median and how sure it is.

    Attributes:
        median: The middle value.
        low: Lower end of the 95 % interval of the median.
        high: Its upper end.
        count: Measurements.
    """

    median: float
    low: float
    high: float
    count: int


def estimate_median(values: Sequence[float]) -> MedianInterval:
    """Return the median of independent measurements with its 95 % interval by order statistics.

    The interval is from the k-th smallest value to the k-th largest, with the largest k at which a
    binomial(n, 1/2) is below k with probability 2.5 % at most (Conover, Practical Nonparametric
    Statistics, section 3.2).

    Raises:
        ConfigError: There are too few of them.
    """
    rank = count_outside(len(values))
    if rank == 0:
        raise ConfigError(
            f"rounds: {len(values)}; a 95 % interval takes {MIN_COUNT} at least; measure more"
        )
    ordered = sorted(values)
    return MedianInterval(median(ordered), ordered[rank - 1], ordered[-rank], len(ordered))


def count_outside(count: int) -> int:
    """Return which smallest and largest of `count` values end the interval; 0 = there is none."""
    below, rank = 0, 0
    while rank <= count:
        below += math.comb(count, rank)
        if below > (1 - CONFIDENCE) / 2 * 2**count:
            break
        rank += 1
    return rank
