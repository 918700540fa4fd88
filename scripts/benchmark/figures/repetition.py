"""The same study under another name, all of whose stages are stored already."""

from __future__ import annotations

from scripts.benchmark.configurations import TWELVE, fixed_study
from scripts.benchmark.figures.wall import ARM, run_study
from scripts.benchmark.results import Limit, Row, Values
from scripts.benchmark.settings import Settings
from scripts.benchmark.spread import summarise
from scripts.benchmark.studies import run_distprune, storage

AGAIN = "distprune-again"
LIMIT = 0.1


def measure(settings: Settings) -> Values:
    """Run the twelve, unless they have run, and then once more in the same storage."""
    first = run_study(settings)
    configurations = TWELVE[: settings.configurations]
    values = fixed_study(settings, AGAIN, storage(settings, ARM), configurations)
    # What an earlier call of the benchmark has left under the name would be gone on with.
    again = run_distprune(settings, AGAIN, values, arguments=("--fresh",))
    rows = [
        Row(
            "repeated study, all stages stored: wall / first wall",
            summarise([again.seconds / first.seconds]),
            Limit("<=", LIMIT),
        ),
        Row("repeated study: wall, s", summarise([again.seconds])),
    ]
    return Values(rows, {"first_seconds": first.seconds, "again_seconds": again.seconds})
