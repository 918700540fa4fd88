"""`distprune validate`: check a study file, all problems at once, without starting anything."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from distprune.cli.options import FileArgument, JsonOption, SetOption, parse_overrides
from distprune.search.study_file import Study, load_study
from distprune.search.study_state import resolve_settings

EXAMPLES = (
    "distprune validate search_spaces/quickstart.yaml",
    "distprune validate study.yaml --json",
)
"""Calls that `--help` shows."""


def validate(
    file: Path = FileArgument,
    assignments: list[str] = SetOption,
    as_json: bool = JsonOption,
) -> None:
    """Check a study file and every value its ranges can give; nothing is started."""
    study = load_study(file, parse_overrides(assignments))
    if as_json:
        typer.echo(json.dumps(resolve_settings(study), indent=2))
        return
    typer.echo(f"{file}: valid")
    typer.echo("\n".join(describe_study(study)))


def describe_study(study: Study) -> list[str]:
    """Return a few lines about what a study would do."""
    base = study.base
    lines = [
        f"  study        {study.spec.name}, {study.spec.num_trials} trials",
        f"  checkpoint   {base.checkpoint}",
        f"  task         {base.task.dataset}",
        f"  milestones   {', '.join(f'{milestone:g}' for milestone in study.milestones)}",
        f"  searched     {len(study.parameters)} settings",
    ]
    lines += [f"    {p.name}: {p.kind} {list(p.values)}" for p in study.parameters]
    return lines
