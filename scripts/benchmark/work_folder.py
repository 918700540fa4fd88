"""Where a comparison keeps what it runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_work(work: Path | None) -> Iterator[Path]:
    """Give the folder of what is run; a temporary one is removed afterwards."""
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="distprune-work-") as folder:
        yield Path(folder)
