"""What a figure comes to: rows of a table, and everything that was measured for them."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scripts.benchmark.spread import Spread

COMPARE = {"<=": operator.le, ">=": operator.ge}
SIGNS = {"<=": "≤", ">=": "≥"}


@dataclass(frozen=True)
class Limit:
    """What a figure must reach: `<=` or `>=` a value, and words to add."""

    sign: str
    value: float
    words: str = ""

    def __str__(self) -> str:
        return f"{SIGNS[self.sign]} {self.value:g}" + (f", {self.words}" if self.words else "")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        figure: What was measured.
        measured: Its median and quartiles.
        limit: What it must reach; None = nothing.
    """

    figure: str
    measured: Spread
    limit: Limit | None = None

    @property
    def is_reached(self) -> bool | None:
        """Say whether the median reaches the limit; None = there is none."""
        if self.limit is None:
            return None
        return bool(COMPARE[self.limit.sign](self.measured.median, self.limit.value))

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {**asdict(self), "reached": self.is_reached}


@dataclass(frozen=True)
class Values:
    """What `measure` of a figure returns: rows for the table, and details for the JSON."""

    rows: Sequence[Row]
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return rows and details as JSON values."""
        return {"rows": [row.to_json() for row in self.rows], "details": dict(self.details)}


def format_table(rows: Sequence[Row]) -> str:
    """Return a Markdown table, one line a row."""
    lines = ["| figure | measured | must reach | reached |", "|---|---|---|---|"]
    for row in rows:
        reached = {None: "", True: "yes", False: "no"}[row.is_reached]
        lines.append(f"| {row.figure} | {row.measured} | {row.limit or ''} | {reached} |")
    return "\n".join(lines)
