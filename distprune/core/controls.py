"""Controls: masks of exactly the size of another one, drawn at random.

Random and inverted subnetworks are those of Prasanna et al. 2020, who draw each unit by its own
coin, so that sizes vary. Here the numbers of heads and of neurons are those of the mask, exactly.
"""

from __future__ import annotations

import numpy as np

from distprune.core.mask import BoolArray, Mask
from distprune.core.units import UnitKind

_RANDOM, _INVERTED = 0, 1
"""Random numbers of one seed that are independent of each other."""


def draw_random_mask(mask: Mask, seed: int) -> Mask:
    """Keep as many heads and as many neurons as `mask`, uniform over the whole model.

    The draw depends on the seed and on the two numbers, not on which units `mask` keeps.

    Args:
        mask: Says how many units of each kind are kept.
        seed: Seed of the draw, >= 0.
    """
    generator = np.random.default_rng((seed, _RANDOM))
    everything = {kind: np.ones_like(mask[kind]) for kind in UnitKind}
    return Mask(
        {kind: _draw(everything[kind], mask.num_kept(kind), generator) for kind in UnitKind}
    )


def draw_inverted_mask(mask: Mask, seed: int) -> Mask | None:
    """Keep as many heads and as many neurons as `mask`, all of them units that it removes.

    A kind that `mask` leaves whole stays whole. Where as many units are removed as kept there is
    one such mask only.

    Args:
        mask: The mask to invert.
        seed: Seed of the draw, >= 0.

    Returns:
        The mask; None where there is none, see `explain_no_inverted_mask`.
    """
    if explain_no_inverted_mask(mask) is not None:
        return None
    generator = np.random.default_rng((seed, _INVERTED))
    pools = {kind: mask[kind] if mask[kind].all() else ~mask[kind] for kind in UnitKind}
    return Mask({kind: _draw(pools[kind], mask.num_kept(kind), generator) for kind in UnitKind})


def explain_no_inverted_mask(mask: Mask) -> str | None:
    """Say why a mask has no inverted mask of its size; None: it has one."""
    if all(mask[kind].all() for kind in UnitKind):
        return "nothing is removed"
    for kind in UnitKind:
        kept = mask.num_kept(kind)
        removed = mask[kind].size - kept
        if 0 < removed < kept:
            return f"only {removed} {kind}s are removed and {kept} are kept"
    return None


def _draw(pool: BoolArray, count: int, generator: np.random.Generator) -> BoolArray:
    """Keep `count` units of `pool`, drawn without replacement."""
    kept = np.zeros(pool.size, dtype=np.bool_)
    kept[generator.choice(np.flatnonzero(pool), size=count, replace=False)] = True
    return kept.reshape(pool.shape)
