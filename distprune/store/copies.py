"""Copies of a remote store's entries on this machine: old ones go when its disk fills up."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from distprune.store.location import measure_folder
from distprune.store.paths import PATHS

FREE_SHARE = 0.1
"""Share of the disk that copies leave to others."""

GRACE_S = 900.0
"""How long a copy stays after its last use at least: somebody may read it still."""


def mark_copy(cache: Path, key: str) -> None:
    """Note that the copy of an entry is used now, if there is one."""
    with suppress(OSError):
        os.utime(cache / PATHS.entry(key))


def make_room(cache: Path) -> int:
    """Remove the longest unused copies while the disk has too little room; return how many.

    Whoever needs one again downloads it again.
    """
    usage = shutil.disk_usage(cache)
    missing = usage.total * FREE_SHARE - usage.free
    if missing <= 0:
        return 0
    latest = time.time() - GRACE_S
    unused = sorted((_last_use(path), path) for path in (cache / PATHS.entries).glob("??/*"))
    num_removed = 0
    for used, folder in unused:
        if missing <= 0 or used > latest:
            break
        missing -= measure_folder(folder)
        shutil.rmtree(folder, ignore_errors=True)  # another process may remove it, or fill it
        num_removed += 1
    return num_removed


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
