"""`distprune check`: what of a checkpoint can be pruned."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from distprune.cli.options import JsonOption

EXAMPLES = (
    "distprune check demo:minilm",
    "distprune check bert-base-uncased --json",
)
"""Calls that `--help` shows."""


def check(
    model: str = typer.Argument(
        help="Checkpoint: a hub id, a local folder, or demo:minilm.", show_default=False
    ),
    as_json: bool = JsonOption,
) -> None:
    """Say what of a checkpoint can be pruned, and how its pre-trained importance is measured."""
    from distprune.cli.terminal import silence_libraries
    from distprune.core.cost import CostKind, encoder_cost, unit_cost
    from distprune.core.mask import Mask
    from distprune.core.units import UnitKind
    from distprune.methods.spec import PretrainedObjective
    from distprune.models.checkpoint import inspect_checkpoint
    from distprune.trial.stages import resolve_objective

    silence_libraries()
    facts = inspect_checkpoint(model)
    shape = facts.shape
    cost = encoder_cost(shape, Mask.dense(shape), num_tokens=128)
    objective = resolve_objective(PretrainedObjective.AUTO, facts)
    if as_json:
        summary = {
            **asdict(facts),
            "encoder_parameters": cost.parameters,
            "pretrained_objective": str(objective),
        }
        typer.echo(json.dumps(summary, indent=2))
        return
    lines = [
        f"{model}: can be pruned",
        f"  family              {facts.model_type}",
        f"  layers              {shape.num_layers}",
        f"  encoder parameters  {cost.parameters:,}",
        f"  MACs                {cost.macs:,.0f} for 128 tokens",
        f"  MLM head            {'its own' if facts.has_mlm_head else 'none'}; "
        f"pretrained_objective auto = {objective}",
    ]
    for kind in UnitKind:
        parameters = unit_cost(kind, shape, CostKind.PARAMETERS, 128)
        lines.append(
            f"  {kind + 's':<18}  {shape.total(kind):,} ({shape.units_per_layer(kind):,} a layer), "
            f"{parameters:,.0f} parameters each"
        )
    typer.echo("\n".join(lines))
