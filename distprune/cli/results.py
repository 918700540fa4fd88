"""`distprune results`: the leaderboard of a study that has ended."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console

from distprune.cli import constraints
from distprune.cli.confirmation_tables import collect_trust, show_trust
from distprune.cli.constraint_question import Question
from distprune.cli.options import JsonOption, StudyArgument
from distprune.cli.tables import show_leaderboard, show_mixing_paths
from distprune.cli.usage import describe_hosts, describe_usage
from distprune.library.leaderboard import Leaderboard, read_leaderboard
from distprune.library.mixing_paths import read_paths
from distprune.library.study_folder import StudyFolder, find_study
from distprune.library.study_usage import measure_costs

EXAMPLES = (
    "distprune results studies/quickstart",
    "distprune results studies/quickstart --json",
    *constraints.EXAMPLES,
)
"""Calls that `--help` shows."""


def results(
    study: str = StudyArgument,
    max_latency_ms: float = constraints.MaxLatencyOption,
    min_retention: float = constraints.MinRetentionOption,
    max_parameters: float = constraints.MaxParametersOption,
    max_macs: float = constraints.MaxMacsOption,
    latency_table: Path = constraints.LatencyTableOption,
    batch: int = constraints.BatchOption,
    length: int = constraints.LengthOption,
    threads: int = constraints.ThreadsOption,
    any_machine: bool = constraints.AnyMachineOption,
    mask: Path = constraints.MaskFileOption,
    as_json: bool = JsonOption,
) -> None:
    """Print the best mask at every sparsity, what confirmed it, and what the stages cost.

    With a limit: the best of all levels of all trials that meets it, whatever the study was for.
    """
    folder = find_study(study)
    leaderboard = read_leaderboard(folder)
    question = Question(
        max_latency_ms,
        min_retention,
        max_parameters,
        max_macs,
        latency_table,
        batch,
        length,
        threads,
        any_machine,
        mask,
    )
    if question.is_asked:
        constraints.answer_question(folder, leaderboard, question, as_json)
        return
    if as_json:
        typer.echo(format_results(folder, leaderboard))
        return
    console = Console()
    show_leaderboard(console, leaderboard)
    show_trust(console, folder, leaderboard)
    show_mixing_paths(console, read_paths(folder))
    usage, hosts = measure_costs(folder)
    typer.echo(f"\n{describe_usage(usage)}")
    if len(hosts) > 1:
        typer.echo(describe_hosts(hosts))


def format_results(folder: StudyFolder, leaderboard: Leaderboard) -> str:
    """Return a leaderboard, what confirmed it and what the study's stages cost, as JSON."""
    usage, hosts = measure_costs(folder)
    stages = asdict(usage) | {"hosts": hosts}
    values = {**json.loads(leaderboard.to_json()), "stages": stages, **collect_trust(folder)}
    return json.dumps(values, indent=2)
