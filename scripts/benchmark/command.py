"""The benchmark's command: measure figures one by one, print a table, write JSON."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.benchmark.arms import say
from scripts.benchmark.machine import describe_machine, describe_versions
from scripts.benchmark.results import Row, Values, format_table
from scripts.benchmark.settings import Settings, quick_settings
from scripts.benchmark.work_folder import open_work

FIGURES = {
    "step": "training step of the compact model / dense step",
    "profile": "where the time of a training step goes",
    "inference": "compact inference, measured speed-up / promised by MACs",
    "scoring": "scoring a batch / training step",
    "worker": "seconds from a stage's submission to its first training step, cold and warm",
    "wall": "naive wall / distprune wall, twelve configurations",
    "repetition": "a repeated study / the first one (uses distprune's arm of `wall`)",
    "asha": "both arms with Optuna and ASHA",
    "ablation": "distprune without each of its ideas",
    "memory": "memory that a second trial adds, distprune / naive",
    "trials": "1,000 trials of trivial stages: distprune / plain Tune; the driver's memory",
}
"""Modules in `figures`, in the order in which they run."""

DESCRIPTION = """Measure distprune beside a hand-written script, and each of its ideas by itself.

Prints a table; progress goes to standard error. Every arm runs in processes of its own with a cold
store. Measure on a machine that does nothing else.

figures (default: all):
""" + "\n".join(f"  {name:11} {words}" for name, words in FIGURES.items())

EXAMPLES = """examples:
  python scripts/benchmark --output benchmark.json
  python scripts/benchmark step inference scoring
  python scripts/benchmark wall repetition --work measured   # call again to go on
  python scripts/benchmark trials --trials 200
  python scripts/benchmark --quick   # does it work? its values mean nothing
"""


def main() -> None:
    """Measure what the command line asks for."""
    arguments = parse_arguments(sys.argv[1:])
    with open_work(arguments.work) as work:
        settings = make_settings(arguments, work)
        failed = measure_all(arguments.figures or list(FIGURES), settings, arguments.output)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python scripts/benchmark",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="what to measure")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write everything here")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument(
        "--work",
        type=Path,
        help="folder of the arms; one that has ended there is not run again (default: a temporary "
        "folder, removed at the end)",
    )
    parser.add_argument("--trials", type=int, help="trials of the figure `trials`")
    arguments = parser.parse_args(words)
    unknown = [name for name in arguments.figures if name not in FIGURES]
    if unknown:
        parser.error(f"unknown figure {unknown[0]!r}; there are {', '.join(FIGURES)}")
    return arguments


def make_settings(arguments: argparse.Namespace, work: Path) -> Settings:
    """Return the sizes that the command line asks for."""
    settings = quick_settings(work) if arguments.quick else Settings(work)
    if arguments.trials is not None:
        settings = dataclasses.replace(settings, trivial_trials=arguments.trials)
    return settings


def measure_all(names: Sequence[str], settings: Settings, output: Path | None) -> list[str]:
    """Measure figures in turn, print their table, and return the names of those that failed.

    The JSON is written after each figure, so that what comes later loses nothing.
    """
    report: dict[str, Any] = {
        "command": shlex.join(["python", "scripts/benchmark", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "settings": settings.describe(),
        "figures": {},
    }
    rows: list[Row] = []
    failed = []
    for name in names:
        say(f"figure {name}: {FIGURES[name]}")
        started = time.perf_counter()
        try:
            values = measure_figure(name, settings)
        except Exception:
            traceback.print_exc()
            failed.append(name)
            report["figures"][name] = {"error": traceback.format_exc()}
        else:
            rows += values.rows
            seconds = round(time.perf_counter() - started, 1)
            report["figures"][name] = {**values.to_json(), "seconds": seconds}
        if output is not None:
            output.write_text(json.dumps(report, indent=2) + "\n")
    print(format_table(rows))
    return failed


def measure_figure(name: str, settings: Settings) -> Values:
    """Import a figure's module and let it measure."""
    values: Values = importlib.import_module(f"scripts.benchmark.figures.{name}").measure(settings)
    return values
