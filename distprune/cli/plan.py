"""`distprune plan`: what a study will cost, before it is started."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from distprune.cli.durations import format_duration
from distprune.cli.options import (
    AddressOption,
    FileArgument,
    JsonOption,
    SetOption,
    ShipCodeOption,
    VerboseOption,
    parse_overrides,
)
from distprune.core.byte_size import format_bytes

if TYPE_CHECKING:
    from distprune.search.plan import Plan
    from distprune.search.study_file import Study

EXAMPLES = (
    "distprune plan search_spaces/quickstart.yaml",
    "distprune plan study.yaml --num-trials 200 --address auto",
    "distprune plan study.yaml --set trial.checkpoint=./larger-model --json",
)
"""Calls that `--help` shows."""


def plan(
    file: Path = FileArgument,
    assignments: list[str] = SetOption,
    num_trials: int = typer.Option(None, "--num-trials", min=1, help="Trials in all."),
    address: str = AddressOption,
    ship_code: bool = ShipCodeOption,
    as_json: bool = JsonOption,
    verbose: bool = VerboseOption,
) -> None:
    """Estimate what a study will cost: stages, hours, disk, and how far its trials will come.

    A few steps of each kind of stage are timed on the cluster, with the real model on real data;
    nothing is stored. Then the study is played through 25 times, with trials drawn uniformly.
    """
    from distprune.cli.terminal import silence_libraries
    from distprune.search.plan import PlanRequest, plan_study
    from distprune.search.study_file import load_study

    overrides = parse_overrides(assignments)
    if num_trials is not None:
        overrides["num_trials"] = num_trials
    study = load_study(file, overrides)
    if not verbose:
        silence_libraries()
    planned = plan_study(
        PlanRequest(study, address, ship_code, verbose), lambda text: typer.echo(text, err=True)
    )
    if as_json:
        typer.echo(json.dumps(list_values(study, planned), indent=2))
    else:
        show_plan(Console(), study, planned)


def show_plan(console: Console, study: Study, planned: Plan) -> None:
    """Print a plan for a person."""
    console.print("\n".join(describe_plan(study, planned)), markup=False, highlight=False)
    console.print(format_kinds(planned))
    console.print(explain_plan(planned), markup=False, highlight=False)


def describe_plan(study: Study, planned: Plan) -> list[str]:
    """Return the sums of a plan, one line each."""
    bill, room, resources = planned.bill, planned.room, planned.resources
    low, high = map(format_duration, bill.wall_range_s)
    spread = f" ({low} to {high})" if bill.num_rounds > 1 else ""
    grants = f"{resources.cpus_per_stage} cores"
    if resources.gpus_per_stage:
        grants += f" and {resources.gpus_per_stage:g} GPUs"
    reached = ", ".join(
        f"{bill.reached[number]:.1f} reach {milestone * 100:g} %"
        for number, milestone in enumerate(study.milestones, start=1)
    )
    lines = [
        f"{study.spec.name}: {study.spec.num_trials} trials, {room.concurrent} at a time; stages "
        f"of {grants}, {room.slots} at a time",
        "",
        f"wall time   {format_duration(bill.wall_s)}{spread}, of it "
        f"{format_duration(bill.before_trials_s)} before the first trial",
        f"core hours  {bill.core_hours:.3g}; {bill.unshared_core_hours:.3g} if every trial "
        "computed its own stages",
    ]
    if resources.gpus_per_stage:
        lines.append(f"GPU hours   {bill.gpu_hours:.3g}")
    return [*lines, f"disk        {format_bytes(round(bill.num_bytes))}", f"trials      {reached}"]


def format_kinds(planned: Plan) -> Table:
    """Return the bill by kind of stage."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stage")
    for name in ("computed", "without\nsharing", "one takes", "core\nhours", "disk"):
        table.add_column(name, justify="right")
    for kind in planned.bill.kinds:
        table.add_row(
            kind.kind,
            f"{kind.num_computed:.1f}",
            f"{kind.num_needed:.1f}",
            f"{kind.stage_s:.1f} s",
            f"{kind.core_hours:.3g}",
            format_bytes(round(kind.num_bytes)),
        )
    return table


def explain_plan(planned: Plan) -> str:
    """Return what a plan was estimated from, and what it leaves out."""
    from distprune.search.plan import LEFT_OUT

    num_rounds = planned.bill.num_rounds
    rounds = (
        f"Numbers are means and the wall time is the median of {num_rounds} rounds (10 % of them "
        "below the lower end, 10 % above the upper one)."
        if num_rounds > 1
        else "So large a study is played through once."
    )
    timed = f"Stages were timed for {format_duration(planned.timings.total_s)}."
    return "\n".join([f"{timed} {rounds} Not in it:", *(f"- {text}" for text in LEFT_OUT)])


def list_values(study: Study, planned: Plan) -> dict[str, Any]:
    """Return a plan as JSON values."""
    from distprune.search.plan import LEFT_OUT

    bill = asdict(planned.bill)
    reached = {
        f"{milestone:g}": planned.bill.reached[number]
        for number, milestone in enumerate(study.milestones, start=1)
    }
    return {
        "study": study.spec.name,
        "num_trials": study.spec.num_trials,
        "room": asdict(planned.room),
        "cpus_per_stage": planned.resources.cpus_per_stage,
        "gpus_per_stage": planned.resources.gpus_per_stage,
        **bill,
        "reached": reached,
        "timings": {str(kind): asdict(t) for kind, t in planned.timings.kinds.items()},
        "timing_s": planned.timings.total_s,
        "left_out": LEFT_OUT,
    }
