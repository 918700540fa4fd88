"""A stage request: a pure description of one expensive step, and so its own key in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from distprune.store.key import content_key

STAGE_VERSIONS = {
    "prepare": 2,
    "dense": 4,
    "snapshot": 3,
    "probe": 3,
    "score": 2,
    "retrain": 3,
    "evaluate": 2,
}
"""Raised when a stage's code changes its results, so that older entries are not used."""


@dataclass(frozen=True)
class StageRequest:
    """One stage with everything that decides its result.

    Attributes:
        stage: Name in `STAGE_VERSIONS`.
        settings: JSON values that decide the result; part of the key.
        inputs: Keys of the entries that it reads, by role; part of the key.
        places: Where to find what `settings` name by fingerprint, and what else does not change
            the result; no part of the key.
        is_shared: All trials of the study need it, so it may take all cores of a node.
    """

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Any] = field(default_factory=dict)
    is_shared: bool = False

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the key is made of; stored beside the result as its lineage."""
        return {
            "stage": self.stage,
            "version": STAGE_VERSIONS[self.stage],
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
        }

    @cached_property
    def key(self) -> str:
        """SHA-256 of the identity, as hex."""
        return content_key(self.identity)

    @property
    def seed(self) -> int:
        """Seed of the stage's random numbers, in [0, 2**31); decided by the key."""
        return seed_from_key(self.key)


def request_snapshot(dense: StageRequest, point: float) -> StageRequest:
    """Return the stage of the weights at a fraction `point` of the fine-tuning `dense`, in [0, 1).

    The dense run commits its snapshots on the way. One that it was not asked for is trained again
    up to the point, with the same seed; so which points a study asks for changes none of them.
    """
    return StageRequest(
        stage="snapshot",
        settings={**dense.settings, "point": point},
        inputs={**dense.inputs, "dense": dense.key},
        places={"checkpoint": dense.places["checkpoint"]},
        is_shared=True,
    )


def seed_from_key(key: str) -> int:
    """Return the seed that goes with a key, in [0, 2**31)."""
    return int(key[:8], 16) & 0x7FFFFFFF
