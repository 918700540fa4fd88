"""Eviction: which weights go when a store is larger than it may be, and what stays, and why.

Least recently used weights go first. Other results (scores, evaluations, prepared tasks) never go:
they are the evidence for every mask and number, resuming replays them, and they are small.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from distprune.library.pins import SHARED_STAGES, Pins, find_pins, read_stage
from distprune.library.study_folder import StudyStorage
from distprune.store.inventory import EntrySummary
from distprune.store.store import Store

WEIGHT_STAGES = (*SHARED_STAGES, "retrain")
"""Stages whose entries are weights: large, and computed again where they are needed again."""

GRACE_S = 3600.0
"""How long weights that no history names stay after their last use, as those of `distprune run`."""


class Reason(StrEnum):
    """Why an entry stays."""

    RESULT = "no weights: never evicted"
    PINNED = "pinned"
    IN_USE = "in use by a running study"
    RECENT = "of no study, used within the last hour"
    FITS = "within the limit"


@dataclass(frozen=True)
class Stay:
    """An entry that stays.

    Attributes:
        entry: The entry.
        reason: Why it stays.
        detail: What pins it, where it is pinned.
    """

    entry: EntrySummary
    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class EvictionPlan:
    """What becomes of each entry of a store.

    Attributes:
        max_bytes: How large the store may be; None = as large as it is.
        goes: Weights to remove, least recently used first.
        stays: All other entries.
    """

    max_bytes: int | None
    goes: tuple[EntrySummary, ...]
    stays: tuple[Stay, ...]

    @property
    def bytes_before(self) -> int:
        """Size of all entries."""
        return self.bytes_after + sum(entry.num_bytes for entry in self.goes)

    @property
    def bytes_after(self) -> int:
        """Size of the entries that stay."""
        return sum(stay.entry.num_bytes for stay in self.stays)

    def count_bytes(self, *reasons: Reason) -> int:
        """Add up the sizes of what stays for one of `reasons`."""
        return sum(stay.entry.num_bytes for stay in self.stays if stay.reason in reasons)

    def explain_excess(self) -> str | None:
        """Say in one line why the store stays above its limit, and what to do; None = it does not.

        Only what stays for good counts: what is in use now can go later.
        """
        lasting = self.count_bytes(Reason.RESULT, Reason.PINNED)
        if self.max_bytes is None or lasting <= self.max_bytes:
            return None
        return (
            f"store.max_gib: {_gib(self.max_bytes)} is less than the {_gib(lasting)} that cannot "
            f"go: {_gib(self.count_bytes(Reason.PINNED))} of weights that mask libraries and "
            f"studies under way need, {_gib(self.count_bytes(Reason.RESULT))} of other results; "
            "raise it, or remove the folders of studies that are no longer needed"
        )


def plan_eviction(
    entries: Iterable[EntrySummary],
    pins: Pins,
    max_bytes: int | None,
    now: float,
    grace_s: float = GRACE_S,
) -> EvictionPlan:
    """Choose the least recently used weights that nobody needs, until the rest fits.

    Args:
        entries: All entries of a store.
        pins: What its studies need.
        max_bytes: How large the rest may be; None evicts nothing.
        now: Seconds since the epoch.
        grace_s: How long weights that no history names stay after their last use.
    """
    judged = [(entry, _judge(entry, pins, now - grace_s)) for entry in entries]
    stays = [stay for _, stay in judged if stay is not None]
    free = [entry for entry, stay in judged if stay is None]
    size = sum(entry.num_bytes for entry, _ in judged)
    goes: list[EntrySummary] = []
    for entry in sorted(free, key=lambda entry: (entry.last_used, entry.created, entry.key)):
        if max_bytes is not None and size > max_bytes:
            goes.append(entry)
            size -= entry.num_bytes
        else:
            stays.append(Stay(entry, Reason.FITS))
    return EvictionPlan(max_bytes, tuple(goes), tuple(stays))


def plan_store(
    store: Store, storage: StudyStorage, max_bytes: int | None, grace_s: float = GRACE_S
) -> EvictionPlan:
    """Plan the eviction from the store of a storage.

    Raises:
        StorageError: The store cannot be read, or what a study needs of it.
    """
    entries = list(store.list_entries())
    # Pins after entries: what is used or reported in between is seen, or refused by `remove`.
    pins = find_pins(storage, entries)
    return plan_eviction(entries, pins, max_bytes, time.time(), grace_s)


def evict(store: Store, plan: EvictionPlan) -> list[EntrySummary]:
    """Remove what is to go, but what was used since the plan was made; return what was removed.

    Raises:
        StorageError: The store cannot be written.
    """
    return [entry for entry in plan.goes if store.remove(entry)]


@dataclass(frozen=True)
class Enforcement:
    """What enforcing a limit came to."""

    plan: EvictionPlan
    removed: Sequence[EntrySummary]


def enforce_limit(
    store: Store, storage: StudyStorage, max_bytes: int, grace_s: float = GRACE_S
) -> Enforcement | None:
    """Evict from a store until it is at most `max_bytes` large; one process at a time does it.

    Returns:
        What was done; None if the store is within its limit.

    Raises:
        StorageError: The store cannot be read or written, or what a study needs of it.
    """
    if store.count_bytes() <= max_bytes:
        return None
    with store.eviction():
        plan = plan_store(store, storage, max_bytes, grace_s)
        return Enforcement(plan, evict(store, plan))


def _judge(entry: EntrySummary, pins: Pins, recently: float) -> Stay | None:
    """Say why an entry has to stay; None if it can go."""
    if not entry.is_readable or read_stage(entry) not in WEIGHT_STAGES:
        return Stay(entry, Reason.RESULT)
    if entry.key in pins.reasons:
        return Stay(entry, Reason.PINNED, pins.reasons[entry.key])
    if entry.last_used >= pins.in_use_since:
        return Stay(entry, Reason.IN_USE)
    if entry.key not in pins.known and entry.last_used > recently:
        return Stay(entry, Reason.RECENT)
    return None


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.3g} GiB"
