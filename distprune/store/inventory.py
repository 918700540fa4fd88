"""What a store holds, as needed to judge what can go: entries with their use, and leftovers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from distprune.store.content import DamagedEntryError
from distprune.store.key import JSON
from distprune.store.manifest import parse_manifest


@dataclass(frozen=True)
class EntrySummary:
    """What there is to know about a stored entry without reading its files.

    Attributes:
        key: Its content key.
        record: What was committed with it; empty where its manifest cannot be read.
        num_bytes: Size of all its files, the manifest included: what removing it frees.
        seconds: Wall time that its files took to make: what removing it can cost again.
        created: When it was written, seconds since the epoch.
        last_used: When a process last found it, by the clock of the file system; remote stores do
            not tell, there it is `created`.
        is_readable: Its manifest can be read; `Store.verify` sets the others aside.
    """

    key: str
    record: Mapping[str, JSON]
    num_bytes: int
    seconds: float
    created: float
    last_used: float
    is_readable: bool = True


class LeftoverKind(StrEnum):
    """What is no entry and takes space all the same."""

    TEMPORARY = "temporary"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Leftover:
    """A folder that is no entry.

    Attributes:
        kind: Files half written or half removed, or a damaged entry that was set aside.
        name: Its path; relative to the root where it is below it.
        num_bytes: Size of its files.
        is_stale: Nobody needs it: its process is gone, or it is a damaged entry.
    """

    kind: LeftoverKind
    name: str
    num_bytes: int
    is_stale: bool


def summarise_entry(
    key: str, manifest: bytes, last_used: float | None = None
) -> EntrySummary | None:
    """Judge an entry by the bytes of its manifest.

    Args:
        key: Content key of the entry.
        manifest: What its manifest file holds.
        last_used: When it was last found; None = not known, so when it was written.

    Returns:
        The summary; None if the manifest cannot be read.
    """
    try:
        parsed = parse_manifest(manifest, key)
        created = datetime.fromisoformat(parsed.created).timestamp()
    except (DamagedEntryError, ValueError, TypeError):
        return None
    return EntrySummary(
        key=key,
        record=parsed.record,
        num_bytes=parsed.num_bytes + len(manifest),
        seconds=parsed.seconds,
        created=created,
        last_used=created if last_used is None else last_used,
    )
