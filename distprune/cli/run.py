"""`distprune run`: one trial in this process, without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from distprune.cli.options import (
    FileArgument,
    JsonOption,
    SetOption,
    StorageOption,
    VerboseOption,
    parse_overrides,
)

EXAMPLES = (
    "distprune run search_spaces/quickstart.yaml",
    "distprune run study.yaml --set trial.pruning.mixing.coefficient=0.3 --mask best.safetensors",
)
"""Calls that `--help` shows."""


def run(
    file: Path = FileArgument,
    assignments: list[str] = SetOption,
    storage: str = StorageOption,
    mask: Path = typer.Option(None, "--mask", help="Where to write the mask of the last level."),
    as_json: bool = JsonOption,
    verbose: bool = VerboseOption,
) -> None:
    """Run one trial without Ray. A range takes its first value, unless --set gives it another.

    Results are kept in the same store as those of a search, so nothing is computed twice.
    """
    from distprune.cli.terminal import silence_libraries
    from distprune.search.study import study_folder
    from distprune.search.study_file import load_study

    study = load_study(file, parse_overrides(assignments, storage))
    if not verbose:
        silence_libraries()
    levels = _run_levels(study, study_folder(study).open_store(), as_json)
    if mask is not None:
        levels[-1].mask.save(mask)
        typer.echo(f"mask written to {mask}", err=True)


def _run_levels(study: Any, store: Any, as_json: bool) -> list[Any]:
    """Run the trial, print each level as it comes, and return them."""
    from distprune.trial.executor import InProcessExecutor
    from distprune.trial.resolve import check_pruning, measure_reference, resolve_context
    from distprune.trial.runner import run_trial
    from distprune.trial.stages import TrialStages

    store.check_writable()
    store.remove_stale_temporaries()
    context = resolve_context(study.base, store, study.rewinding_points, _has_gpu())
    check_pruning(study.base.pruning, context)
    stages = TrialStages(study.base, context, store, InProcessExecutor(store))
    _, reference = measure_reference(stages)
    levels = []
    if not as_json:
        typer.echo(f"level  removed  {context.task.metric:>17}  retention  heads  neurons  seconds")
    for level in run_trial(stages):
        levels.append(level)
        retention = reference.retention(level.metric)
        if as_json:
            typer.echo(json.dumps({**level.to_json(), "retention": retention}))
        else:
            mask = level.mask
            typer.echo(
                f"{level.level:5d}  {level.sparsity * 100:5.1f} %  {level.metric:17.4f}  "
                f"{retention:9.3f}  {mask.num_kept('head'):5d}  "
                f"{mask.num_kept('neuron'):7d}  {level.seconds:7.1f}"
            )
    return levels


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
