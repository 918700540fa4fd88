"""The chaos test's command: run rounds, print what each came to, write JSON."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.benchmark.arms import say
from scripts.benchmark.machine import describe_machine, describe_versions
from scripts.chaos.plans import LOCAL_KINDS, Kind, Plan, StudyKind, draw_plans
from scripts.chaos.rounds import TIME_LIMIT_S, Round, Twin, run_round, run_twin
from scripts.chaos.site import Site
from scripts.chaos.studies import make_inputs

DESCRIPTION = """Kill, cut off and damage studies at random moments, and see that nobody can tell.

Each round runs one of two small studies, strikes it one to three times, starts the search again
whenever it was ended, and compares masks, leaderboard, history, MLflow runs, Optuna's trials and
stored stages with those of a twin that nothing was done to. Processes that outlive their round and
temporary files count, too. Ends with exit code 1 unless all rounds are equal.

what is struck:
""" + "\n".join(f"  {kind}" for kind in Kind)

EXAMPLES = """examples:
  python scripts/chaos --rounds 20 --output chaos.json
  python scripts/chaos --seed 3 --only 12            # one round of a seed again
  python scripts/chaos --rounds 4 --kinds driver power
  python scripts/chaos --testbed                     # three hosts, MLflow on PostgreSQL; needs root
"""


def main() -> None:
    """Run the rounds that the command line asks for."""
    arguments = parse_arguments(sys.argv[1:])
    kinds = arguments.kinds or (tuple(Kind) if arguments.testbed else LOCAL_KINDS)
    plans = draw_plans(arguments.seed, arguments.rounds, kinds)
    if arguments.only is not None:
        plans = draw_plans(arguments.seed, arguments.only + 1, kinds)[arguments.only :]
    site = open_site(arguments)
    rounds: list[Round] = []
    try:
        twins, rounds = run_all(plans, site, arguments.limit)
    finally:
        are_equal = bool(rounds) and all(one.is_equal for one in rounds)
        site.close(keep_files=not are_equal)
        if not are_equal:
            say(f"what they left is in {site.work}")
    print(format_table(rounds))
    print(format_summary(twins, rounds))
    if arguments.output is not None:
        values = describe(arguments, twins, rounds)
        arguments.output.write_text(json.dumps(values, indent=2) + "\n")
    if not are_equal:
        sys.exit(1)


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python scripts/chaos",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=20, help="how many (20)")
    parser.add_argument("--seed", type=int, default=0, help="draws what is struck, and when (0)")
    parser.add_argument("--only", type=int, metavar="ROUND", help="this round of the seed alone")
    parser.add_argument("--kinds", type=Kind, nargs="+", metavar="KIND", help="strike only these")
    parser.add_argument(
        "--limit",
        type=float,
        default=TIME_LIMIT_S,
        metavar="SECONDS",
        help=f"of a round; more on a busy machine ({TIME_LIMIT_S:g})",
    )
    parser.add_argument("--testbed", action="store_true", help="on hosts of cluster/testbed")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write everything here")
    parser.add_argument(
        "--work",
        type=Path,
        help="new folder for the studies, which stay there (default: a temporary one, removed if "
        "all rounds are equal); not with --testbed",
    )
    arguments = parser.parse_args(words)
    struck = set(arguments.kinds or ()) - set(LOCAL_KINDS)
    if struck and not arguments.testbed:
        parser.error(f"{', '.join(sorted(struck))}: only with --testbed")
    return arguments


def open_site(arguments: argparse.Namespace) -> Site:
    """Return the place of the rounds."""
    if arguments.testbed:
        # It needs root, and what only Linux has.
        from cluster.testbed import TestbedError
        from scripts.chaos.hosts import Hosts

        try:
            return Hosts()
        except TestbedError as error:
            sys.exit(f"--testbed: {error}")
    from scripts.chaos.machine import Machine

    return Machine(arguments.work)


def run_all(
    plans: Sequence[Plan], site: Site, limit_s: float
) -> tuple[dict[StudyKind, Twin], list[Round]]:
    """Run the twins and all rounds, and say on the way what they came to."""
    inputs = make_inputs(site.work / "inputs")
    twins = {}
    for kind in sorted({plan.study for plan in plans}):
        twins[kind] = run_twin(kind, site, inputs, limit_s)
        say(f"twin {kind}: {twins[kind].seconds:.1f} s")
    rounds = []
    for plan in plans:
        done = run_round(plan, site, inputs, twins[plan.study], limit_s)
        rounds.append(done)
        say(describe_round(done))
        if done.is_equal:
            shutil.rmtree(done.folder.storage, ignore_errors=True)
    for done in rounds:
        done.orphans = site.find_orphans(done.drivers)
        if done.orphans:
            say(f"round {done.plan.number}: processes that did not end: {done.orphans}")
    return twins, rounds


def describe_round(done: Round) -> str:
    """Say in a line what happened, and below it how the study differs."""
    struck = "; ".join(map(str, done.struck)) or "nothing struck"
    line = (
        f"round {done.plan.number} {done.plan.study}: {struck}: {done.seconds:.0f} s, "
        f"{done.lost_s:+.0f} s, {'equal' if done.is_equal else 'NOT EQUAL'}"
    )
    return "\n  ".join([line, *done.differences])


def format_table(rounds: Sequence[Round]) -> str:
    """Return a Markdown table, one line a round."""
    lines = [
        "| round | study | tracked by | what was struck when | starts | time lost | equal |",
        "|---|---|---|---|---|---|---|",
    ]
    for done in rounds:
        plan, struck = done.plan, "; ".join(map(str, done.struck)) or "nothing"
        lines.append(
            f"| {plan.number} | {plan.study} | {'server' if plan.has_server else 'file'} | "
            f"{struck} | {len(done.drivers)} | {done.lost_s:.0f} s | "
            f"{'yes' if done.is_equal else 'NO'} |"
        )
    return "\n".join(lines)


def format_summary(twins: dict[StudyKind, Twin], rounds: Sequence[Round]) -> str:
    """Return what the table comes to."""
    equal = sum(1 for done in rounds if done.is_equal)
    strikes = sum(len(done.struck) for done in rounds)
    undisturbed = ", ".join(f"{kind} {twin.seconds:.0f} s" for kind, twin in twins.items())
    return (
        f"\n{equal} of {len(rounds)} rounds equal, {strikes} strikes, "
        f"{sum(len(done.orphans) for done in rounds)} processes left; undisturbed: {undisturbed}"
    )


def describe(
    arguments: argparse.Namespace, twins: dict[StudyKind, Twin], rounds: Sequence[Round]
) -> dict[str, Any]:
    """Return everything as JSON values."""
    return {
        "command": shlex.join(["python", "scripts/chaos", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "testbed": arguments.testbed,
        "seed": arguments.seed,
        "twins": {str(kind): round(twin.seconds, 1) for kind, twin in twins.items()},
        "equal": all(done.is_equal for done in rounds),
        "rounds": [
            {
                "number": done.plan.number,
                "study": str(done.plan.study),
                "tracked_by": "server" if done.plan.has_server else "file",
                "planned": [str(strike.kind) for strike in done.plan.strikes],
                "struck": [
                    {"kind": str(one.kind), "seconds": round(one.seconds, 1), "what": one.words}
                    for one in done.struck
                ],
                "starts": len(done.drivers),
                "hosts": [driver.host for driver in done.drivers],
                "seconds": round(done.seconds, 1),
                "lost_seconds": round(done.lost_s, 1),
                "equal": done.is_equal,
                "differences": done.differences,
                "orphans": done.orphans,
            }
            for done in rounds
        ],
    }
