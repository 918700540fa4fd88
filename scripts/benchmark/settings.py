"""How much the benchmark does: everything, or just enough to see that it works."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
CONCURRENT = os.cpu_count() or 1
"""Trials at a time, of one core each, in all arms."""


@dataclass(frozen=True)
class Settings:
    """Sizes of all figures.

    Attributes:
        work: Folder of arms and their storage; an arm that has ended there is not run again.
        train_examples: Training examples of the studies.
        search_examples: Examples that decisions are made on.
        report_examples: Examples of distprune's last evaluation.
        scored_examples: Training examples that importance is measured on.
        configurations: The first so many of the twelve.
        asha_trials: Trials of the comparison with Optuna and ASHA.
        ablation_configurations: The first so many of the twelve, for the ablation.
        rounds: Timed rounds of steps, inference and scoring.
        trivial_trials: Trials of the search whose stages do nothing.
        memory_samples: Seconds of steady training whose memory is read.
    """

    work: Path
    train_examples: int = 1024
    search_examples: int = 640
    report_examples: int = 1280
    scored_examples: int = 128
    configurations: int = 12
    asha_trials: int = 12
    ablation_configurations: int = 4
    rounds: int = 40
    trivial_trials: int = 1000
    memory_samples: int = 60

    def describe(self) -> dict[str, Any]:
        """Return the sizes, without the folder."""
        values = asdict(self)
        del values["work"]
        return values | {"concurrent": CONCURRENT}


def quick_settings(work: Path) -> Settings:
    """Return sizes with which every figure ends within a minute or two; its values mean nothing."""
    return Settings(
        work=work,
        train_examples=320,
        search_examples=128,
        report_examples=128,
        scored_examples=32,
        configurations=2,
        asha_trials=2,
        ablation_configurations=1,
        rounds=3,
        trivial_trials=20,
        memory_samples=4,
    )
