"""Paired two-way bootstrap: how sure the difference of two models is, over seeds and examples.

Seeds and examples are both drawn anew; examples jointly for all seeds and both models. This is the
pigeonhole bootstrap (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1), which
counts the noise of single (seed, example) pairs more than once, so it errs on the wide side.

A few seeds, drawn anew, vary too little: by (n - 1) / n of their variance, and never beyond the n
values. So the part of a replicate that the seeds make is stretched, by `stretch_seeds` (our
construction, after the expanded percentile interval of Hesterberg 2015, "What Teachers Should Know
About the Bootstrap"). Without it, intervals of three seeds that should hold 95 % hold 70 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

BLOCK = 1 << 22
"""Examples that are drawn at a time."""

NUM_REPLICATES = 20_000
"""Replicates of a difference: each draw of examples meets several draws of seeds."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """A metric of one model, and what it comes to on other draws of the examples.

    Attributes:
        observed: On the examples themselves.
        replicates: Floats [resample]; the same row of two models is of the same examples.
    """

    observed: float
    replicates: FloatArray


@dataclass(frozen=True)
class Interval:
    """A difference and the interval around it.

    Attributes:
        estimate: The difference, averaged over seeds.
        low: Lower end.
        high: Upper end.
        confidence: Share of such intervals that hold the true difference, in (0, 1).
    """

    estimate: float
    low: float
    high: float
    confidence: float

    @property
    def excludes_zero(self) -> bool:
        """Say whether the sign of the difference is settled."""
        return self.low > 0.0 or self.high < 0.0


def resample_mean(scores: FloatArray, num_resamples: int, seed: int) -> Resampled:
    """Resample a metric that is the mean of a score of each example.

    Args:
        scores: Floats [example].
        num_resamples: How often the examples are drawn anew.
        seed: Equal seeds draw equal examples, for `resample_metric` too.
    """
    replicates = [
        scores[rows].mean(axis=1) for rows in _draw_examples(len(scores), num_resamples, seed)
    ]
    return Resampled(float(scores.mean()), np.concatenate(replicates))


def resample_metric(
    compute: Callable[[IndexArray], float], num_examples: int, num_resamples: int, seed: int
) -> Resampled:
    """Resample any metric; it is computed once for each draw.

    Args:
        compute: The metric on the examples with these numbers, repetitions among them.
        num_examples: How many examples there are.
        num_resamples: How often they are drawn anew.
        seed: Equal seeds draw equal examples.
    """
    replicates = [
        compute(rows)
        for block in _draw_examples(num_examples, num_resamples, seed)
        for rows in block
    ]
    return Resampled(compute(np.arange(num_examples)), np.array(replicates))


def bootstrap_difference(
    first: Sequence[Resampled], second: Sequence[Resampled], confidence: float, seed: int
) -> Interval:
    """Return the percentile interval of the mean difference `first` - `second` over seeds.

    Args:
        first: One model's metric with each seed.
        second: The other's, with the same seeds and resampled with the same draws.
        confidence: Share of such intervals that should hold the true difference, in (0, 1).
        seed: Seed of the draws of seeds.

    Raises:
        ValueError: There are fewer than two seeds, or the two do not go together.
    """
    num_seeds = len(first)
    if num_seeds < 2 or len(second) != num_seeds:
        raise ValueError(
            f"seeds: {num_seeds} and {len(second)}; an interval over seeds needs two at least, "
            "the same for both models"
        )
    observed = [a.observed - b.observed for a, b in zip(first, second, strict=True)]
    over_examples = np.stack(
        [a.replicates - b.replicates for a, b in zip(first, second, strict=True)]
    )
    replicates = _draw_seeds(over_examples, stretch_seeds(num_seeds, confidence), seed)
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(replicates, (tail, 1.0 - tail))
    return Interval(float(np.mean(observed)), float(low), float(high), confidence)


def stretch_seeds(num_seeds: int, confidence: float) -> float:
    """Return by how much the part of the seeds is stretched, > 1; it falls to 1 with many seeds.

    sqrt(n / (n - 1)) makes up for the variance, the ratio of the quantiles of Student's t with
    n - 1 degrees of freedom and of the normal distribution for not knowing it.
    """
    from scipy.special import ndtri, stdtrit

    quantile = (1.0 + confidence) / 2
    degrees = num_seeds - 1
    ratio = float(stdtrit(degrees, quantile) / ndtri(quantile))
    return ratio * math.sqrt(num_seeds / degrees)


def _draw_examples(num_examples: int, num_resamples: int, seed: int) -> Iterator[IndexArray]:
    """Yield numbers of examples, [resamples of a block, example], drawn with replacement."""
    generator = np.random.default_rng(seed)
    size = max(1, BLOCK // num_examples)
    for begin in range(0, num_resamples, size):
        shape = min(size, num_resamples - begin), num_examples
        yield generator.integers(0, num_examples, shape, dtype=np.intp)


def _draw_seeds(over_examples: FloatArray, stretch: float, seed: int) -> FloatArray:
    """Return replicates of the mean over seeds.

    Args:
        over_examples: Differences [seed, resample], each resample of other examples.
        stretch: Factor of the part that comes from drawing the seeds anew.
        seed: Seed of these draws.
    """
    generator = np.random.default_rng(seed)
    centre = over_examples.mean(axis=0)
    rounds = max(1, NUM_REPLICATES // over_examples.shape[1])
    replicates = []
    for _ in range(rounds):
        picks = generator.integers(0, len(over_examples), over_examples.shape)
        drawn = np.take_along_axis(over_examples, picks, axis=0).mean(axis=0)
        replicates.append(centre + stretch * (drawn - centre))
    return np.concatenate(replicates)
