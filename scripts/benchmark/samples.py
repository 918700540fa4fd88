"""What a watch reads while an arm runs, kept in the arm's folder: one JSON line a sample."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "samples.jsonl"


def write_sample(folder: Path, sample: Mapping[str, Any]) -> None:
    """Append a sample."""
    with (folder / FILE).open("a") as file:
        file.write(json.dumps(dict(sample)) + "\n")


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """Return all samples of an arm, in order."""
    path = folder / FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
