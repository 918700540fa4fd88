"""Looks: when a comparison over seeds is looked at, and how sure each look has to be.

To look after each seed and to stop at the first decision finds a difference too often where there
is none. So the looks share the error: each one's is 5 % divided by their number (Bonferroni).
"""

from __future__ import annotations

ERROR = 0.05
"""How often a comparison may be called settled where there is no difference, over all its looks."""

FIRST_LOOK = 3
"""Seeds before the first look; with two, an interval that tells the truth is too wide to decide."""


def list_looks(num_seeds: int) -> tuple[int, ...]:
    """Return after how many seeds comparisons are looked at, increasing; the last is `num_seeds`.

    Args:
        num_seeds: Most seeds that are spent, >= 2.

    Raises:
        ValueError: An interval over one seed was asked for.
    """
    if num_seeds < 2:
        raise ValueError(f"seeds: {num_seeds}; an interval over seeds needs two at least")
    return tuple(range(min(FIRST_LOOK, num_seeds), num_seeds + 1))


def choose_confidence(num_looks: int) -> float:
    """Return the confidence of the interval of each look."""
    return 1.0 - ERROR / num_looks
