"""The command: run searches of growing size, print how they compare, write JSON."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from scripts.benchmark.machine import describe_machine, describe_versions
from scripts.benchmark.work_folder import open_work
from scripts.scale.growth import compare, format_table
from scripts.scale.sizes import Size, measure_size

DESCRIPTION = """Measure how a search grows with its trials.

Runs `distprune search` as it is, but for its stages, which write tiny files at once; so what is
measured is the driver: Tune, Optuna, the history, MLflow, the store. Each size begins cold.
"""
EXAMPLES = """examples:
  python scripts/scale --output scale.json
  python scripts/scale --sizes 100 300 --work measured    # call again to go on
  python scripts/scale --tracking http://127.0.0.1:5000
"""
SIZES = (100, 1_000, 5_000)


def main() -> None:
    """Measure the sizes that the command line asks for."""
    arguments = parse_arguments(sys.argv[1:])
    tracking = {"uri": arguments.tracking, "figures": "none" if arguments.no_figures else "all"}
    sizes: list[Size] = []
    with open_work(arguments.work) as work:
        for trials in sorted(arguments.sizes):
            sizes.append(measure_size(work, trials, tracking))
            if arguments.output is not None:
                arguments.output.write_text(json.dumps(describe(sizes), indent=2) + "\n")
            print(format_table(sizes, compare(sizes)), end="\n\n", flush=True)


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python scripts/scale",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="trials (%(default)s)")
    parser.add_argument("--tracking", metavar="URI", help="tracking server (default: a file)")
    parser.add_argument("--no-figures", action="store_true", help="as tracking.figures: none")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write everything here")
    parser.add_argument(
        "--work",
        type=Path,
        help="folder of the searches; one that has ended there is not run again (default: a "
        "temporary folder, removed at the end)",
    )
    return parser.parse_args(words)


def describe(sizes: Sequence[Size]) -> dict[str, object]:
    """Return everything that was measured as JSON values."""
    return {
        "command": shlex.join(["python", "scripts/scale", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "figures": [figure.to_json() for figure in compare(sizes)],
        "sizes": [asdict(size) for size in sizes],
    }
