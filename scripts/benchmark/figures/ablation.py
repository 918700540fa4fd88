"""What each idea of distprune is worth: the same study without it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from distprune.store.store import Store
from scripts.benchmark.configurations import TWELVE, fixed_study
from scripts.benchmark.results import Row, Values
from scripts.benchmark.settings import Settings
from scripts.benchmark.spread import summarise
from scripts.benchmark.studies import run_distprune, storage

WITHOUT = {
    "sharing": "sharing of stages between trials",
    "mask_keys": "keys by mask",
    "compact_training": "compact training",
    "fused_and_bucketed": "fused optimiser and batches of similar length",
    "fast_gradients": "our dropout and attention, and the cut of the last layer",
}
"""Switches of `scripts.benchmark.switches` that each take an idea out."""

FLOAT32 = "bfloat16"


def measure(settings: Settings) -> Values:
    """Run the first few configurations with everything, then with one idea out at a time."""
    baseline = run(settings, "everything")
    rows, details = [], {"everything": baseline}
    count = settings.ablation_configurations
    for name, words in {**WITHOUT, FLOAT32: "bfloat16 (float32 instead)"}.items():
        details[name] = run(settings, name)
        ratio = details[name]["seconds"] / baseline["seconds"]
        rows.append(
            Row(
                f"wall without {words} / with everything, {count} configurations",
                summarise([ratio]),
            )
        )
    return Values(rows, details)


def run(settings: Settings, without: str) -> dict[str, float]:
    """Run the study and return its wall time, and number and seconds of its stages."""
    arm = f"ablation-{without}"
    configurations = TWELVE[: settings.ablation_configurations]
    values = fixed_study(settings, arm, storage(settings, arm), configurations)
    if without == FLOAT32:
        values["trial"]["precision"] = "float32"
    ended = run_distprune(settings, arm, values, without if without in WITHOUT else None)
    return {"seconds": ended.seconds, **count_stages(storage(settings, arm) / "store")}


def count_stages(root: Path) -> dict[str, float]:
    """Return how many entries of each stage a store has, and the seconds that they took."""
    store = Store(str(root))
    counts: dict[str, float] = defaultdict(float)
    for key in list(store.keys()):
        entry = store.find(key)
        if entry is not None:
            counts[f"{entry.record['stage']}_entries"] += 1
            counts[f"{entry.record['stage']}_seconds"] += entry.seconds
    return {name: round(value, 3) for name, value in sorted(counts.items())}
