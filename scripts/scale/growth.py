"""What a search comes to at each size, and what grows faster than the number of trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.scale.probes import NUM_TENTHS
from scripts.scale.sizes import Size

LINEAR = 1.2
"""Largest exponent of growth that counts as linear; what is measured varies."""
NOTICED_S = 0.5
"""What takes less in all is not looked at: its growth would be chance."""

TIMED = {
    "Optuna: propose": "optuna: ask",
    "Optuna: report and tell": ("optuna: report", "optuna: tell"),
    "history: append": "history: append",
    "store: look whether a trial is known": "store: look up",
    "Tune: snapshots of its state": "tune: snapshot",
    "Tune: one step, all of the above in it": "tune: step",
    "MLflow: calls": "mlflow: ",
}
"""What is timed in the driver, by its words in the table: beginnings of the names of probes."""


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Attributes:
        words: What it says.
        values: One for each size.
        unit: Of the values.
        exponent: Of growth with the number of trials, between the last two sizes; None where
            growth means nothing.
    """

    words: str
    values: tuple[float, ...]
    unit: str
    exponent: float | None = None

    @property
    def is_linear(self) -> bool | None:
        """Say whether it grows no faster than the number of trials; None = nothing to say."""
        return None if self.exponent is None else self.exponent <= LINEAR

    def to_json(self) -> dict[str, Any]:
        """Return the figure as JSON values."""
        return {
            "figure": self.words,
            "values": [round(value, 5) for value in self.values],
            "unit": self.unit,
            "exponent": None if self.exponent is None else round(self.exponent, 2),
            "linear": self.is_linear,
        }


def compare(sizes: Sequence[Size]) -> list[Figure]:
    """Return all figures of the sizes, which increase."""

    def total(words: str, of: Callable[[Size], float], unit: str = "s") -> Figure:
        return Figure(words, tuple(map(of, sizes)), unit, fit_exponent(sizes, of))

    def plain(words: str, of: Callable[[Size], float], unit: str) -> Figure:
        return Figure(words, tuple(map(of, sizes)), unit)

    figures = [
        total("wall", lambda size: size.seconds),
        plain("trials a second", lambda size: size.trials / size.seconds, "1/s"),
        plain("the same in the second half", lambda size: size.last_trials_a_second, "1/s"),
        plain("memory of the driver", lambda size: size.memory_mib, "MiB"),
        plain("its growth in 100 trials, second half", lambda size: size.growth_mib, "MiB"),
    ]
    for words, names in TIMED.items():
        prefixes = (names,) if isinstance(names, str) else names
        figures += [
            total(
                f"{words}, in all",
                lambda size, prefixes=prefixes: sum(map(size.time, prefixes)),
            ),
            plain(
                f"{words}, a trial of the last tenth",
                lambda size, prefixes=prefixes: (
                    1e3 * NUM_TENTHS * sum(map(size.time_in_last_tenth, prefixes)) / size.trials
                ),
                "ms",
            ),
        ]
    return [
        *figures,
        plain("MLflow: calls a trial", lambda size: size.calls("mlflow: ") / size.trials, ""),
        total("MLflow: waited for at the end", lambda size: size.time("tracking: wait")),
        plain("store: entries", lambda size: size.store["num_entries"], ""),
        total("store: list keys", lambda size: size.store["keys_seconds"]),
        total("store: read all manifests", lambda size: size.store["entries_seconds"]),
        total("store: add up sizes", lambda size: size.store["bytes_seconds"]),
        total("the same command again, all trials ended", lambda size: size.again_seconds),
    ]


def fit_exponent(sizes: Sequence[Size], of: Callable[[Size], float]) -> float | None:
    """Return e of "grows as trials to the power of e" between the last two sizes.

    None where there is one size, or where it takes no time worth a look.
    """
    if len(sizes) < 2:
        return None
    low, high = of(sizes[-2]), of(sizes[-1])
    if high < NOTICED_S or low <= 0.0:
        return None
    return math.log(high / low) / math.log(sizes[-1].trials / sizes[-2].trials)


def format_table(sizes: Sequence[Size], figures: Sequence[Figure]) -> str:
    """Return a Markdown table, a column for each size."""
    heads = " | ".join(f"{size.trials:,} trials" for size in sizes)
    lines = [f"| figure | {heads} | grows as trials to the | linear |"]
    lines.append("|---" * (len(sizes) + 3) + "|")
    for figure in figures:
        values = " | ".join(f"{value:.3g} {figure.unit}".strip() for value in figure.values)
        exponent = "" if figure.exponent is None else f"{figure.exponent:.2f}"
        linear = {None: "", True: "yes", False: "**no**"}[figure.is_linear]
        lines.append(f"| {figure.words} | {values} | {exponent} | {linear} |")
    return "\n".join(lines)
