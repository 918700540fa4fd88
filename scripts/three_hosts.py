"""Search the quickstart's space with the real model on three hosts of the testbed, and on one.

Sixteen trials, four times: on one host of three cores; on three hosts of one core each, kept in a
shared folder, behind s3://, and disturbed (a host cut off for 60 s; the driver killed in the last
trial and started again on another host). Trials are drawn at random, none is stopped and each stage
has one thread, so all four do the same work and must leave the same masks, leaderboard and runs.
Tracked by MLflow on PostgreSQL. Needs what cluster/testbed needs, root among it.

python scripts/three_hosts.py --output hosts.json
python scripts/three_hosts.py --trials 6 --only "one host" "shared folder"
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

sys.path[0] = str(Path(__file__).resolve().parents[1])

from cluster.testbed import Plan, Testbed, TestbedError  # noqa: E402
from distprune.tasks.demo import fetch_archive  # noqa: E402
from scripts.benchmark.arms import say  # noqa: E402
from scripts.benchmark.machine import describe_machine, describe_versions  # noqa: E402
from tests.cluster.studies import ClusterStudy, Results  # noqa: E402

ROOT = Path("/var/tmp/distprune-three-hosts")
QUICKSTART = Path(__file__).resolve().parents[1] / "search_spaces" / "quickstart.yaml"
NUM_CORES = 3
MEMORY_MIB = 6000
LIMIT_S = 3600.0
CUT_S = 60.0
ONE_HOST, S3, DISTURBED = "one host", "s3", "disturbed"
RUNS = (ONE_HOST, "shared folder", S3, DISTURBED)


@dataclass(frozen=True)
class Outcome:
    """What a search came to.

    Attributes:
        name: How it was run.
        seconds: From the first start of its driver to the last end.
        stages: Stages of trials by the host that computed them.
        trials: The same for each trial, in words.
        is_equal: It left the same leaderboard, masks and runs as the first search.
        events: What happened to it, and when.
    """

    name: str
    seconds: float
    stages: dict[str, int]
    trials: dict[str, str]
    is_equal: bool
    events: tuple[str, ...]


def main() -> None:
    """Run the searches that the command line asks for, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=RUNS, metavar="RUN")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write everything here")
    arguments = parser.parse_args()
    outcomes: list[Outcome] = []
    first: Results | None = None
    try:
        for name in arguments.only:
            outcome, results = run(name, arguments.trials, first)
            first = first or results
            outcomes.append(outcome)
            say(f"{name}: {outcome.seconds:.0f} s, {'equal' if outcome.is_equal else 'NOT EQUAL'}")
    except TestbedError as error:
        sys.exit(str(error))
    print(format_table(outcomes))
    if arguments.output is not None:
        values = {
            "command": " ".join(["python", "scripts/three_hosts.py", *sys.argv[1:]]),
            "machine": describe_machine(),
            "versions": describe_versions(),
            "runs": [asdict(outcome) for outcome in outcomes],
        }
        arguments.output.write_text(json.dumps(values, indent=2) + "\n")
    sys.exit(0 if all(outcome.is_equal for outcome in outcomes) else 1)


def run(name: str, num_trials: int, first: Results | None) -> tuple[Outcome, Results]:
    """Run one search on a testbed of its own, and compare what it leaves with the first one."""
    hosts = 1 if name == ONE_HOST else NUM_CORES
    plan = Plan(
        hosts=hosts,
        cpus=NUM_CORES // hosts,
        memory_mib=MEMORY_MIB * NUM_CORES // hosts,
        tracking=True,
        s3=name == S3,
        # The hosts have no way out: the data are fetched here.
        environment={"OMP_NUM_THREADS": "1", "DISTPRUNE_CACHE": str(fetch_archive().parents[1])},
    )
    with Testbed.lend(plan, ROOT) as testbed:
        storage = f"{testbed.bucket}/studies" if name == S3 else str(testbed.shared / "studies")
        study = ClusterStudy(testbed, testbed.shared / "study", storage, "hosts", LIMIT_S)
        write(study, num_trials)
        start = time.monotonic()
        events = disturb(study, num_trials) if name == DISTURBED else search(study)
        seconds = time.monotonic() - start
        results = study.read_results()
    is_equal = first is None or differences(results, first) == []
    stages = count_stages(results.hosts.values())
    return Outcome(name, seconds, stages, results.hosts, is_equal, events), results


def write(study: ClusterStudy, num_trials: int) -> None:
    """Write the study file: the quickstart's space, the same work in whatever order trials end."""
    values = yaml.safe_load(QUICKSTART.read_text())
    values |= {
        "num_trials": num_trials,
        "sampler": {"name": "random"},
        "stopping": None,
        "resources": {"cpus_per_stage": 1, "shared_cpus": 1},
    }
    study.write_values(values)


def search(study: ClusterStudy) -> tuple[str, ...]:
    """Run the search from beginning to end."""
    study.finish(study.start("h1"))
    return ()


def disturb(study: ClusterStudy, num_trials: int) -> tuple[str, ...]:
    """Cut a host off, then kill the driver in the last trial and go on from another host."""
    start = time.monotonic()
    driver = study.start("h2")
    study.wait_for(lambda: study.count_reports() >= num_trials)
    cut_s = time.monotonic() - start
    with study.testbed.cut_off("h3"):
        time.sleep(CUT_S)
    study.testbed.restart("h3")
    study.wait_for(lambda: count_ended(study) >= num_trials - 1)
    killed_s = time.monotonic() - start
    driver.kill()
    study.finish(study.start("h1"))
    return (
        f"h3 cut off for {CUT_S:.0f} s at {cut_s:.0f} s, then rebooted",
        f"driver on h2 killed at {killed_s:.0f} s, started again on h1",
    )


def count_ended(study: ClusterStudy) -> int:
    """Count the trials that have ended, by what the latest driver printed."""
    output = study.folder / f"driver-{len(study.drivers)}.out"
    return sum(": completed;" in line for line in output.read_text().splitlines())


def differences(found: Results, wanted: Results) -> list[str]:
    """Name what differs, but for where it was computed."""
    names = ("leaderboard", "masks", "runs")
    return [name for name in names if getattr(found, name) != getattr(wanted, name)]


def count_stages(of_trials: Iterable[str]) -> dict[str, int]:
    """Add up texts like `h1 3, h2 2`."""
    counts: Counter[str] = Counter()
    for text in of_trials:
        for part in filter(None, text.split(", ")):
            host, count = part.split()
            counts[host] += int(count)
    return dict(sorted(counts.items()))


def format_table(outcomes: Sequence[Outcome]) -> str:
    """Return a Markdown table, one line a search, and where each trial of it ran."""
    lines = ["| search | wall | stages by host | equal | what happened |", "|---|---|---|---|---|"]
    for one in outcomes:
        hosts = ", ".join(f"{host} {count}" for host, count in one.stages.items())
        equal = "yes" if one.is_equal else "NO"
        happened = "; ".join(one.events)
        lines.append(f"| {one.name} | {one.seconds:.0f} s | {hosts} | {equal} | {happened} |")
    for one in outcomes:
        lines += ["", f"{one.name}, stages of each trial by host:"]
        lines += [f"  {trial}: {text}" for trial, text in sorted(one.trials.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
