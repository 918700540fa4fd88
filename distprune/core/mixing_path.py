"""The exact mixing path: every mask that the mixing coefficient λ can choose, and where it changes.

Under convex mixing a unit's score is a line over λ, from its fine-tuned score at 0 to its
pre-trained score at 1, and a level removes the k lowest. The path is walked from 0 to 1 (our
construction): the next change is where the highest of the removed lines, a convex function, meets
the lowest of the kept ones, a concave function. Newton's method from the right finds that in a few
steps, so the crossings of all pairs are never listed.

A float is taken as the exact number that it is. Float arithmetic only sorts out which units can
matter; integers decide. So ties are ties, and a pair of units changes hands at most once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from distprune.core.importance_scores import FloatArray, Importance
from distprune.core.mask import BoolArray, Mask
from distprune.core.selection import Allocation, SelectionRule, num_removed
from distprune.core.units import UnitKind
from distprune.errors import ConfigError, DivergedTrialError

IntArray = NDArray[np.intp]

LINES_PER_BLOCK = 128
"""λ is walked in as many blocks as there are this many units; changes nothing but the speed."""

ROUNDING_ERROR = 8 * float(np.finfo(np.float64).eps)
"""More than the error of `λ·a + (1-λ)·b` in float64, as a share of `|λ·a| + |(1-λ)·b|`."""

TINY = float(np.finfo(np.float64).tiny)
"""More than what is lost where a λ, or its product with 1, is too small for a normal float64."""


@dataclass(frozen=True)
class Exchange:
    """Units that change hands at one λ.

    Attributes:
        coefficient: λ, exactly. 0: the mask at 0 itself, where ties go by layer and unit, is not
            the one just after it; 1: likewise.
        units: (kind, layer, unit) of each unit that is kept on one side and removed on the other.
    """

    coefficient: Fraction
    units: tuple[tuple[UnitKind, int, int], ...]


@dataclass(frozen=True)
class MixingPath:
    """The masks that λ in [0, 1] chooses.

    They are those of the open intervals between exchanges, and those at 0 and at 1 themselves. A
    mask that only ties at a single λ inside could choose is not one of them. No mask comes back
    after an exchange: where a set of units is lowest at two λ, it is lowest between them.

    Attributes:
        start: The mask at λ = 0.
        exchanges: What changes, λ increasing; no two at the same λ.
    """

    start: Mask
    exchanges: tuple[Exchange, ...]

    def breakpoints(self, kind: UnitKind | None = None) -> tuple[Fraction, ...]:
        """Return each λ at which units of `kind`, or of any kind, change hands; increasing."""
        return tuple(
            exchange.coefficient
            for exchange in self.exchanges
            if kind is None or any(changed is kind for changed, _, _ in exchange.units)
        )

    def num_masks(self, kind: UnitKind | None = None) -> int:
        """Count the different masks of `kind`, or of all kinds together."""
        return len(self.breakpoints(kind)) + 1

    def interval_at(
        self, coefficient: float, kind: UnitKind | None = None
    ) -> tuple[Fraction, Fraction]:
        """Return the λ between which the units of `kind`, or of all kinds, are as at this λ."""
        breakpoints = self.breakpoints(kind)
        bounds = (Fraction(0), *breakpoints, Fraction(1))
        passed = _count_passed(breakpoints, coefficient)
        return bounds[passed], bounds[passed + 1]

    def mask_at(self, coefficient: float) -> Mask:
        """Return the mask at a λ; at the λ of an exchange, other than 0, the mask after it.

        Raises:
            ValueError: λ is not in [0, 1].
        """
        kept = {kind: self.start[kind].copy() for kind in UnitKind}
        for exchange in self.exchanges[: _count_passed(self.breakpoints(), coefficient)]:
            _exchange(kept, exchange)
        return Mask(kept)

    def masks(self) -> Iterator[tuple[Fraction, Fraction, Mask]]:
        """Yield (from λ, to λ, mask) for every different mask, λ increasing."""
        kept = {kind: self.start[kind].copy() for kind in UnitKind}
        low = Fraction(0)
        for exchange in self.exchanges:
            yield low, exchange.coefficient, Mask(kept)
            _exchange(kept, exchange)
            low = exchange.coefficient
        yield low, Fraction(1), Mask(kept)


def find_obstacle(rule: SelectionRule) -> str | None:
    """Return why a rule has no mixing path; None: it has one.

    The path follows a fixed number of lowest units. With floors, or with kinds that are ranked
    together and cost differently, how many and which units may be removed depends on λ.
    """
    if rule.allocation is not Allocation.SEPARATE:
        return f"allocation {rule.allocation} has no mixing path; only {Allocation.SEPARATE} has"
    floors = {str(kind): rule.floor(kind) for kind in rule.kinds if rule.floor(kind) > 0}
    if floors:
        return f"min units per layer {floors} has no mixing path; only 0 has"
    return None


def trace_mixing_path(
    pretrained: Importance, finetuned: Importance, mask: Mask, sparsity: float, rule: SelectionRule
) -> MixingPath:
    """Trace all masks that `select` makes of `λ·pretrained + (1-λ)·finetuned`, λ in [0, 1].

    `select` rounds the mixed scores; where that makes ties of different scores, this path is the
    exact one.

    Args:
        pretrained: Score per unit at λ = 1, normalised, higher = keep.
        finetuned: Score per unit at λ = 0, normalised, higher = keep.
        mask: The mask before.
        sparsity: Removed / total at start, in [0, 1).
        rule: Kinds that may be removed.

    Raises:
        ConfigError: The rule has no path, see `find_obstacle`.
        DivergedTrialError: A score is not finite.
    """
    obstacle = find_obstacle(rule)
    if obstacle is not None:
        raise ConfigError(f"selection: {obstacle}")
    if not (pretrained.is_finite and finetuned.is_finite):
        raise DivergedTrialError("importance: a score is not finite; the model has diverged")
    kept = {kind: mask[kind].copy() for kind in UnitKind}
    exchanged: defaultdict[Fraction, list[tuple[UnitKind, int, int]]] = defaultdict(list)
    for kind in rule.kinds:
        live = np.argwhere(mask[kind])
        lines = _Lines(pretrained[kind][mask[kind]], finetuned[kind][mask[kind]])
        removals = num_removed(sparsity, mask[kind].size) - (mask[kind].size - len(live))
        removed, changes = _walk(lines, max(removals, 0))
        kept[kind][tuple(live[removed].T)] = False
        for coefficient, changed in changes:
            exchanged[coefficient] += [(kind, *at) for at in live[changed].tolist()]
    return MixingPath(
        Mask(kept), tuple(Exchange(at, tuple(units)) for at, units in sorted(exchanged.items()))
    )


def _count_passed(breakpoints: tuple[Fraction, ...], coefficient: float) -> int:
    """Count the breakpoints up to λ; at 0 none is passed yet."""
    if not 0.0 <= coefficient <= 1.0:
        raise ValueError(f"coefficient: {coefficient} must be in [0, 1]")
    return bisect_right(breakpoints, coefficient) if coefficient > 0 else 0


def _exchange(kept: dict[UnitKind, BoolArray], exchange: Exchange) -> None:
    """Let units change hands, in place."""
    for kind, layer, unit in exchange.units:
        kept[kind][layer, unit] = not kept[kind][layer, unit]


class _Lines:
    """The scores of one kind's live units as lines over λ, in the order of layer and unit.

    Args:
        pretrained: Scores at λ = 1.
        finetuned: Scores at λ = 0.
    """

    def __init__(self, pretrained: FloatArray, finetuned: FloatArray) -> None:
        self.pretrained = pretrained
        self.finetuned = finetuned
        self._underflow = TINY * np.abs(pretrained) + TINY * np.abs(finetuned) + TINY
        self._exact = _scale_to_integers(pretrained, finetuned)

    def bound(self, coefficient: Fraction, lines: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return numbers below and above the exact scores of some lines at a λ."""
        parts = (
            float(coefficient) * self.pretrained[lines],
            float(1 - coefficient) * self.finetuned[lines],
        )
        scores = parts[0] + parts[1]
        error = ROUNDING_ERROR * (np.abs(parts[0]) + np.abs(parts[1])) + self._underflow[lines]
        return scores - error, scores + error

    def score(self, line: int, coefficient: Fraction) -> int:
        """Return the exact score at a λ, in units that depend on this λ alone."""
        at_one, at_zero = self._exact[line]
        share = coefficient.numerator
        return share * at_one + (coefficient.denominator - share) * at_zero

    def slope(self, line: int) -> int:
        """Return the exact slope, in units that all lines have in common."""
        at_one, at_zero = self._exact[line]
        return at_one - at_zero

    def cross(self, first: int, second: int) -> Fraction:
        """Return the λ at which two lines of different slope meet."""
        rise = self._exact[second][1] - self._exact[first][1]
        return Fraction(rise, self.slope(first) - self.slope(second))


def _scale_to_integers(*scores: FloatArray) -> list[tuple[int, ...]]:
    """Return the scores of each unit, exact up to one factor that all have in common."""
    ratios = [[value.as_integer_ratio() for value in array.tolist()] for array in scores]
    # Denominators of floats are powers of two: the largest is a multiple of each.
    common = max((ratio[1] for array in ratios for ratio in array), default=1)
    scaled = ([numerator * (common // part) for numerator, part in array] for array in ratios)
    return list(zip(*scaled, strict=True))


def _choose_lowest(scores: FloatArray, count: int) -> BoolArray:
    """Say which `count` scores are lowest; ties go to the earlier ones."""
    chosen = np.zeros(len(scores), dtype=np.bool_)
    chosen[np.argsort(scores, stable=True)[:count]] = True
    return chosen


def _walk(lines: _Lines, count: int) -> tuple[BoolArray, list[tuple[Fraction, IntArray]]]:
    """Return which `count` lines are lowest at λ = 0, and which change hands at each λ."""
    first = _choose_lowest(lines.finetuned, count)
    if count in (0, len(first)):
        return first, []
    removed, changes = first.copy(), []
    blocks = 1 + len(first) // LINES_PER_BLOCK
    for block in range(blocks):
        low, high = Fraction(block, blocks), Fraction(block + 1, blocks)
        near = _find_near(lines, count, low, high)
        while meeting := _find_meeting(lines, near, removed, high):
            coefficient, changed = meeting
            removed[changed] = ~removed[changed]
            changes.append((coefficient, changed))
    # Of lines that meet at 1 itself the walk, which ends before it, knows nothing.
    changed = np.flatnonzero(removed != _choose_lowest(lines.pretrained, count))
    return first, [*changes, (Fraction(1), changed)] if len(changed) else changes


def _find_near(lines: _Lines, count: int, low: Fraction, high: Fraction) -> IntArray:
    """Return the lines that could be the `count`-th lowest somewhere between two λ.

    The `count`-th lowest score lies between the `count`-th lowest of all lower and of all upper
    bounds; a line that stays outside is removed, or kept, all the way.
    """
    everything = np.arange(len(lines.pretrained))
    ends = [lines.bound(end, everything) for end in (low, high)]
    below, above = np.minimum(ends[0][0], ends[1][0]), np.maximum(ends[0][1], ends[1][1])
    least, most = (np.partition(bound, count - 1)[count - 1] for bound in (below, above))
    return np.flatnonzero((above >= least) & (below <= most))


def _find_meeting(
    lines: _Lines, near: IntArray, removed: BoolArray, limit: Fraction
) -> tuple[Fraction, IntArray] | None:
    """Return the next λ before `limit` at which lines change hands, and these lines.

    How far the highest removed line is above the lowest kept one is convex over λ and not above 0
    where the walk stands. So Newton's method from `limit` comes down to its last zero and never
    beyond.
    """
    inside, outside = near[removed[near]], near[~removed[near]]
    coefficient = limit
    while len(outside):
        highest, top = _find_extreme(lines, inside, coefficient, 1)
        lowest, bottom = _find_extreme(lines, outside, coefficient, -1)
        if highest < lowest or (highest == lowest and coefficient == limit):
            return None
        if highest == lowest:
            # Just after they meet, the less steep line is the lower one.
            order = sorted([*top, *bottom], key=lambda line: (lines.slope(line), line))
            changed = set(top) ^ set(order[: len(top)])
            return coefficient, np.array(sorted(changed))
        coefficient = lines.cross(top[0], bottom[0])
    return None


def _find_extreme(
    lines: _Lines, among: IntArray, coefficient: Fraction, sign: int
) -> tuple[int, list[int]]:
    """Return the highest score at a λ, or the lowest if `sign` is -1, and all lines that have it.

    Only lines whose floats are too close to tell are compared exactly.
    """
    below, above = lines.bound(coefficient, among)
    possible = above >= below.max() if sign > 0 else below <= above.min()
    scores = {line: lines.score(line, coefficient) for line in among[possible].tolist()}
    extreme = max(scores.values(), key=lambda score: sign * score)
    return extreme, [line for line, score in scores.items() if score == extreme]
