"""`distprune train`: train a mask's ticket on a task, beside controls of the same size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from distprune.cli.downstream import (
    DownstreamSetOption,
    Progress,
    RewindingOption,
    build_spec,
    describe_origin,
    read_task,
)
from distprune.cli.options import JsonOption, VerboseOption, parse_overrides
from distprune.errors import ConfigError

if TYPE_CHECKING:
    from distprune.core.mask import Mask
    from distprune.trial.downstream import Arm, TicketControl
    from distprune.trial.stages import TrialStages

EXAMPLES = (
    "distprune train --mask studies/quickstart/best@0.5 --task demo:tweets",
    "distprune train --mask mask.safetensors --model ./my-bert --task task.yaml --save ./small",
    "distprune train --mask mask.safetensors --task demo:nyt --seeds 5 --controls random,dense",
)
"""Calls that `--help` shows."""


def train(
    mask: str = typer.Option(
        ...,
        "--mask",
        help="Mask file, STUDY/best@0.5, or models:/... of MLflow.",
        show_default=False,
    ),
    task: str = typer.Option(
        ...,
        "--task",
        help="demo:movies, demo:amazon, demo:tweets, demo:nyt, or a YAML file with a task.",
        show_default=False,
    ),
    model: str = typer.Option(
        None,
        "--model",
        help="Checkpoint of the same counts; default: the one that the mask was found on.",
        show_default=False,
    ),
    assignments: list[str] = DownstreamSetOption,
    rewinding: str = RewindingOption,
    seeds: int = typer.Option(1, "--seeds", min=1, help="Replicates with seeds of their own."),
    controls: str = typer.Option(
        "",
        "--controls",
        help="Masks of the same size to compare with, by comma: random, inverted, dense, "
        "lambda_0, lambda_1, magnitude.",
    ),
    storage: str = typer.Option(
        "studies", "--storage", help="Folder or URI whose store keeps what is computed."
    ),
    save: Path = typer.Option(
        None,
        "--save",
        help="Empty or new folder for the compact model of the best seed on the search split.",
    ),
    as_json: bool = JsonOption,
    verbose: bool = VerboseOption,
) -> None:
    """Train a mask's ticket on a task in this process. Nothing is computed twice."""
    from rich.console import Console

    from distprune.cli.downstream_tables import show_arms
    from distprune.cli.terminal import silence_libraries
    from distprune.deployment.compact_folder import check_free
    from distprune.loading import load_mask
    from distprune.trial.downstream import (
        find_checkpoint,
        find_rewinding,
        parse_rewinding,
        train_downstream,
    )

    chosen = parse_controls(controls)
    if save is not None:
        check_free(save)
    loaded = load_mask(mask)
    point = find_rewinding(loaded) if rewinding is None else parse_rewinding(rewinding)
    checkpoint = model or find_checkpoint(loaded)
    if checkpoint is None:
        raise ConfigError(f"--model: mask {mask} does not say what it was found on; name it")
    spec = build_spec(checkpoint, read_task(task), parse_overrides(assignments))
    if not verbose:
        silence_libraries()
    progress = Progress()
    stages = _open_stages(spec, loaded, point, storage)
    facts = stages.context.checkpoint
    origin = describe_origin(loaded, facts.name, facts.fingerprint)
    if origin is not None:
        progress.say(origin)
    replicates = [spec.seed + number for number in range(seeds)]
    arms = train_downstream(stages, loaded, point, replicates, chosen, progress.say)
    if save is not None:
        _save_model(stages, loaded, point, arms, save)
        progress.say(f"compact model written to {save}")
    if as_json:
        typer.echo(json.dumps(describe_training(stages, loaded, point, arms), indent=2))
        return
    show_arms(Console(), arms, stages.context.task.metric, explain_arms(stages, arms, point))


def parse_controls(text: str) -> tuple[TicketControl, ...]:
    """Return the controls that a comma-separated list names, each once.

    Raises:
        ConfigError: A name is unknown.
    """
    from distprune.trial.downstream import TicketControl
    from distprune.trial.validation import suggest_name

    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [str(control) for control in TicketControl]
    for name in names:
        if name not in known:
            raise ConfigError(f"--controls: {name!r} is unknown; {suggest_name(name, known)}")
    return tuple(dict.fromkeys(TicketControl(name) for name in names))


def _open_stages(spec: Any, mask: Mask, rewinding: float, storage: str) -> TrialStages:
    """Check everything that can be checked before anything is trained."""
    import torch

    from distprune.library.study_folder import locate_storage
    from distprune.trial.downstream import check_mask
    from distprune.trial.executor import InProcessExecutor
    from distprune.trial.resolve import resolve_context
    from distprune.trial.stages import TrialStages

    store = locate_storage(storage).open_store()
    store.check_writable()
    store.remove_stale_temporaries()
    context = resolve_context(spec, store, (rewinding,), torch.cuda.is_available())
    check_mask(mask, context.checkpoint)
    return TrialStages(spec, context, store, InProcessExecutor(store))


def describe_training(
    stages: TrialStages, mask: Mask, rewinding: float, arms: Sequence[Arm]
) -> dict[str, Any]:
    """Return everything that was measured, for programs."""
    context = stages.context
    return {
        "checkpoint": {
            "name": context.checkpoint.name,
            "fingerprint": context.checkpoint.fingerprint,
        },
        "mask": {"digest": mask.digest, "heads": mask.num_kept("head")}
        | {"neurons": mask.num_kept("neuron")},
        "task": stages.spec.task.model_dump(mode="json"),
        "metric": context.task.metric,
        "higher_is_better": context.task.higher_is_better,
        "constant_predictor": dict(context.task.floors),
        "rewinding": rewinding,
        "precision": context.precision,
        "arms": [
            {
                "name": str(arm.name),
                "cost": asdict(arm.cost),
                "retentions": list(arm.retentions),
                "seeds": [
                    {
                        "seed": ticket.seed,
                        "metrics": ticket.metrics,
                        "evaluations": ticket.evaluations,
                        "weights": ticket.weights.key,
                        "mask": ticket.mask.digest,
                    }
                    for ticket in arm.tickets
                ],
            }
            for arm in arms
        ],
    }


def explain_arms(stages: TrialStages, arms: Sequence[Arm], rewinding: float) -> str:
    """Return what the numbers of the table are."""
    task, num_seeds = stages.context.task, len(arms[0].tickets)
    spread = f"mean ± standard deviation over {num_seeds} seeds" if num_seeds > 1 else "one seed"
    better = "higher" if task.higher_is_better else "lower"
    lines = [
        f"{task.metric}: {better} is better, {spread}; a constant prediction scores "
        f"{task.floors['report']:.4f} on the report split. Trained from rewinding point "
        f"{rewinding:g}, {stages.context.precision}."
    ]
    if not arms[0].retentions:
        lines.append("The dense model is no better than that, so there is no retention.")
    return "\n".join(lines)


def _save_model(
    stages: TrialStages, mask: Mask, rewinding: float, arms: Sequence[Arm], folder: Path
) -> None:
    """Write the compact model of the seed that is best on the search split."""
    from distprune.deployment.compact_folder import save
    from distprune.models.checkpoint import load_tokenizer, name_labels
    from distprune.trial.work.weights import load_model

    context = stages.context
    sign = 1.0 if context.task.higher_is_better else -1.0
    best = max(arms[0].tickets, key=lambda ticket: sign * ticket.metrics["search"])
    entry = stages.store.find(best.weights.key)
    assert entry is not None  # it was stored, or found, a moment ago
    model = load_model(
        entry.path(best.weights.file), context.checkpoint.location, context.task.num_labels, mask
    )
    name_labels(model, context.task.label_names)
    evidence = describe_evidence(stages, mask, rewinding, arms, best.seed)
    tokenizer = load_tokenizer(context.checkpoint.location)
    save(model.eval(), folder, mask, tokenizer, evidence, stages.num_tokens)


def describe_evidence(
    stages: TrialStages, mask: Mask, rewinding: float, arms: Sequence[Arm], seed: int
) -> dict[str, Any]:
    """Return what the folder of a compact model says: the mask's origin, and its own training.

    Checkpoint and metrics are those of the saved model; those of the study that found the mask
    stay below `mask`.
    """
    ticket = next(ticket for ticket in arms[0].tickets if ticket.seed == seed)
    dense = next(ticket for ticket in arms[-1].tickets if ticket.seed == seed)
    training = describe_training(stages, mask, rewinding, arms)
    return {
        **dict(mask.metadata),
        "checkpoint": training["checkpoint"],
        "metrics": {
            "name": stages.context.task.metric,
            **ticket.metrics,
            "dense": dense.metrics,
            "constant_predictor": dict(stages.context.task.floors),
        },
        "training": {**training, "saved_seed": seed},
        "mask": dict(mask.metadata),
    }
