"""Constraints that nobody stated before the study: `distprune results STUDY --max-latency-ms 4`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from distprune.cli.latency_display import NOTHING, format_ms
from distprune.cli.tables import format_parameters
from distprune.core.atomic_file import write_file
from distprune.core.latency_table import (
    Architecture,
    LatencyTable,
    LayerLatencies,
    locate_table,
    read_table,
)
from distprune.core.mask import Mask
from distprune.core.retention import Reference
from distprune.core.units import EncoderShape
from distprune.errors import ConfigError, StorageError
from distprune.library.constraints import (
    Constraints,
    Cost,
    Point,
    find_best,
    find_front,
    find_nearest,
    gather_points,
    list_costs,
)
from distprune.library.history import History, read_trials
from distprune.library.leaderboard import Leaderboard
from distprune.library.study_folder import StudyFolder

EXAMPLES = (
    "distprune results studies/quickstart --max-latency-ms 4 --min-retention 0.95 "
    "--latency-table latency.json",
    "distprune results studies/quickstart --max-macs 0.4 --mask small.safetensors",
)
"""Calls that `distprune results --help` shows."""

NUM_TOKENS = 128
"""Tokens that MACs are counted for where no table says which."""

EXIT_NOTHING = 1
"""Exit code where no level meets the constraints."""

MaxLatencyOption = typer.Option(
    None,
    "--max-latency-ms",
    help="Best level of all trials with at most this latency, predicted by --latency-table.",
    show_default=False,
)
MinRetentionOption = typer.Option(
    None,
    "--min-retention",
    help="Only levels that keep this share of the dense model's advantage.",
    show_default=False,
)
MaxParametersOption = typer.Option(
    None,
    "--max-parameters",
    help="Only levels with at most this share of the dense encoder's parameters, above 0 to 1.",
    show_default=False,
)
MaxMacsOption = typer.Option(
    None,
    "--max-macs",
    help="Only levels with at most this share of the dense encoder's MACs, above 0 to 1.",
    show_default=False,
)
LatencyTableOption = typer.Option(
    None,
    "--latency-table",
    help="Table that `distprune bench MODEL --table FILE` measured; without it the study's own, if "
    "its objective is one of latency.",
    show_default=False,
)
BatchOption = typer.Option(
    None, "--batch", help="Batch, if the table has several.", show_default=False
)
LengthOption = typer.Option(
    None,
    "--length",
    help="Tokens, if the table has several; also those that MACs are counted for.",
    show_default=False,
)
ThreadsOption = typer.Option(
    None, "--threads", help="Threads, if the table has several.", show_default=False
)
AnyMachineOption = typer.Option(
    False, "--any-machine", help="Use a table that was measured on another machine."
)
MaskFileOption = typer.Option(
    None, "--mask", help="Where to write the mask of the answer.", show_default=False
)


@dataclass(frozen=True)
class Question:
    """What is asked of a study; the values of the options above, None = not given."""

    max_latency_ms: float | None = None
    min_retention: float | None = None
    max_parameters: float | None = None
    max_macs: float | None = None
    latency_table: Path | None = None
    batch: int | None = None
    length: int | None = None
    threads: int | None = None
    any_machine: bool = False
    mask: Path | None = None

    @property
    def is_asked(self) -> bool:
        """Say whether anything is asked."""
        return self != Question()

    @property
    def constraints(self) -> Constraints:
        """What a level has to meet.

        Raises:
            ConfigError: A limit is none.
        """
        latency = self.max_latency_ms
        if latency is not None and not 0 < latency < float("inf"):
            raise ConfigError(f"--max-latency-ms: {latency:g}; it must be above 0; correct it")
        if self.min_retention is not None and not abs(self.min_retention) < float("inf"):
            raise ConfigError(f"--min-retention: {self.min_retention:g} is no share; correct it")
        for name in ("max_parameters", "max_macs"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ConfigError(
                    f"--{name.replace('_', '-')}: {share:g}; it is a share of the dense encoder, "
                    "above 0 and at most 1; write 0.5 for half of it"
                )
        return Constraints(
            max_latency=None if latency is None else latency / 1e3,
            min_retention=self.min_retention,
            max_parameters=self.max_parameters,
            max_macs=self.max_macs,
        )


@dataclass(frozen=True)
class Answer:
    """What the study says.

    Attributes:
        points: Every level of every trial.
        constraints: What was asked for.
        num_tokens: Tokens that MACs are counted for.
        latencies: What latency was predicted with.
        best: The best level that meets them; None = none does.
        nearest: The level that is least far from them.
        mask: The mask of `best`, with what is known about it.
    """

    points: Sequence[Point]
    constraints: Constraints
    num_tokens: int
    latencies: LayerLatencies | None
    best: Point | None
    nearest: Point | None
    mask: Mask | None


def answer_question(
    folder: StudyFolder, leaderboard: Leaderboard, question: Question, as_json: bool
) -> None:
    """Print the best level under the question's constraints and the front, and draw it.

    Where no level meets them: says which comes nearest, and exits with 1.

    Raises:
        InputError: A limit, the table or the study cannot be used.
    """
    from distprune.report.pareto_figure import draw_pareto

    answer = find_answer(folder, leaderboard, question)
    figure = folder.report / "pareto.png"
    write_file(figure, draw_pareto(answer.points, answer.constraints, answer.best))
    if question.mask is not None and answer.mask is not None:
        answer.mask.save(question.mask)
    if as_json:
        typer.echo(json.dumps(summarise_answer(answer), indent=2))
    else:
        console = Console()
        typer.echo(describe_answer(answer))
        show_fronts(console, answer)
        typer.echo(f"Figure: {figure}")
        if question.mask is not None and answer.mask is not None:
            typer.echo(f"Mask:   {question.mask}")
    if answer.best is None:
        raise typer.Exit(EXIT_NOTHING)


def find_answer(folder: StudyFolder, leaderboard: Leaderboard, question: Question) -> Answer:
    """Look through all levels of a study.

    Raises:
        InputError: A limit, the table or the study cannot be used.
    """
    constraints = question.constraints
    known = _read_facts(folder, leaderboard)
    shape = EncoderShape(**known["shape"])
    architecture = Architecture(str(known["checkpoint"]["model_type"]), shape)
    latencies = _find_latencies(folder, question, architecture)
    num_tokens = latencies.conditions.length if latencies else question.length or NUM_TOKENS
    reference = Reference(
        leaderboard.dense["search"], leaderboard.floor["search"], leaderboard.higher_is_better
    )
    trials = read_trials(History(folder.history).events())
    points = gather_points(trials.values(), shape, reference, num_tokens, latencies)
    best = find_best(points, constraints)
    mask = None
    if best is not None:
        mask = best.mask.with_metadata(
            describe_point(best, leaderboard, known, constraints, latencies)
        )
    nearest = find_nearest(points, constraints)
    return Answer(points, constraints, num_tokens, latencies, best, nearest, mask)


def describe_point(
    point: Point,
    leaderboard: Leaderboard,
    known: Mapping[str, Any],
    constraints: Constraints,
    latencies: LayerLatencies | None,
) -> dict[str, Any]:
    """Return what a mask file says about a mask that answers constraints.

    As `distprune.library.mask_library.describe_mask`, but that it is the best at no milestone.
    """
    return {
        "checkpoint": known["checkpoint"],
        "shape": known["shape"],
        "sparsities": asdict(point.sparsities),
        "study": leaderboard.study,
        "trial": point.trial,
        "level": point.level,
        "milestone": None,
        "parameters": dict(point.settings),
        "metrics": {
            "name": leaderboard.metric,
            "search": point.metric,
            "report": None,
            "dense": dict(leaderboard.dense),
            "constant_predictor": dict(leaderboard.floor),
            "retention": point.retention,
        },
        "constraints": asdict(constraints),
        "predicted_latency": None
        if latencies is None
        else {"seconds": point.latency, **asdict(latencies.conditions)},
    }


def describe_answer(answer: Answer) -> str:
    """Return what was found in a line or two."""
    wanted = describe_constraints(answer.constraints)
    num_trials = len({point.trial for point in answer.points})
    searched = f"{len(answer.points)} different levels of {num_trials} trials"
    how = []
    if answer.latencies is not None:
        error = answer.latencies.error
        sure = str(error) if error else "its error was not measured"
        how.append(f"Latency is predicted for {answer.latencies.conditions}: {sure}.")
    how.append(
        f"MACs of {answer.num_tokens} tokens. Metric on the search split; on the report split it "
        "was not measured."
    )
    if answer.best is not None:
        title = f"Best of {searched}" + (f" with {wanted}" if wanted else "")
        return "\n".join([f"{title}: {describe_level(answer.best)}", *how])
    if answer.nearest is None:
        return "no trial has reached a milestone yet, so there is no level to choose from"
    return (
        f"none of {searched} has {wanted}; nearest is {describe_level(answer.nearest)}"
        f" ({describe_excess(answer.nearest, answer.constraints)})"
    )


def describe_constraints(constraints: Constraints) -> str:
    """Return the constraints as people say them."""
    words = []
    if constraints.max_latency is not None:
        words.append(f"latency <= {constraints.max_latency * 1e3:g} ms")
    if constraints.min_retention is not None:
        words.append(f"retention >= {constraints.min_retention:g}")
    for cost in (Cost.PARAMETERS, Cost.MACS):
        limit = constraints.limit(cost)
        if limit is not None:
            words.append(f"{cost} <= {limit:.4g} of dense")
    return " and ".join(words)


def describe_level(point: Point) -> str:
    """Return a level in words: where it is, what it is worth, what it costs."""
    place = f"trial {point.trial}, level {point.level}"
    latency = "" if point.latency is None else f", {format_ms(point.latency)} ms"
    return (
        f"{'the dense model' if point.level == 0 else place}: retention {point.retention:.3f}, "
        f"{point.sparsity:.0%} of the units removed{latency}, "
        f"{point.measure(Cost.PARAMETERS):.0%} of the parameters, "
        f"{point.measure(Cost.MACS):.0%} of the MACs"
    )


def describe_excess(point: Point, constraints: Constraints) -> str:
    """Return which constraints a point misses, and by how much."""
    words = []
    for cost in Cost:
        limit = constraints.limit(cost)
        if limit is not None and point.measure(cost) > limit:
            words.append(f"{cost} {point.measure(cost) / limit - 1:.1%} above the limit")
    least = constraints.min_retention
    if least is not None and point.retention < least:
        words.append(f"retention {least - point.retention:.3f} below the limit")
    return ", ".join(words)


def show_fronts(console: Console, answer: Answer) -> None:
    """Print the levels that no other beats; a star marks the costs at which that is so."""
    fronts = {cost: find_front(answer.points, cost) for cost in list_costs(answer.points)}
    on_front = {id(point): point for front in fronts.values() for point in front}
    title = "Levels that none beats in retention without a higher cost (of those with a *)"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    names = ("removed", "metric", "retention", "latency\nms", "params", "MACs", "trial", "level")
    for name in names:
        table.add_column(name, justify="right")

    def mark(point: Point, cost: Cost, text: str) -> str:
        return text + (" *" if point in fronts.get(cost, ()) else "  ")

    for point in sorted(on_front.values(), key=lambda p: (p.sparsity, p.trial, p.level)):
        latency = NOTHING if point.latency is None else format_ms(point.latency)
        table.add_row(
            f"{point.sparsity:.0%}",
            f"{point.metric:.4f}",
            f"{point.retention:.3f}",
            mark(point, Cost.LATENCY, latency),
            mark(point, Cost.PARAMETERS, f"{point.measure(Cost.PARAMETERS):.0%}"),
            mark(point, Cost.MACS, f"{point.measure(Cost.MACS):.0%}"),
            str(point.trial),
            str(point.level),
        )
    console.print(table)
    if answer.best is not None and answer.best.settings:
        console.print(
            f"trial {answer.best.trial}: {format_parameters(answer.best.settings)}",
            markup=False,
            highlight=False,
        )


def summarise_answer(answer: Answer) -> dict[str, Any]:
    """Return the answer as JSON values; latencies are in seconds."""
    return {
        "constraints": asdict(answer.constraints),
        "num_tokens": answer.num_tokens,
        "conditions": answer.latencies and asdict(answer.latencies.conditions),
        "prediction_error": answer.latencies
        and answer.latencies.error
        and asdict(answer.latencies.error),
        "num_levels": len(answer.points),
        "answer": answer.best and summarise_point(answer.best),
        "nearest": answer.nearest and summarise_point(answer.nearest),
        "fronts": {
            str(cost): [summarise_point(point) for point in find_front(answer.points, cost)]
            for cost in list_costs(answer.points)
        },
    }


def summarise_point(point: Point) -> dict[str, Any]:
    """Return a point as JSON values, its mask by digest."""
    values = asdict(point)
    del values["packed_mask"]
    return {**values, "mask": point.mask.digest}


def _read_facts(folder: StudyFolder, leaderboard: Leaderboard) -> Mapping[str, Any]:
    """Return what the study's masks say of their checkpoint and its counts."""
    if not leaderboard.rows:
        raise StorageError(
            f"study {folder.root}: has no mask yet; run `distprune search` to its end"
        )
    metadata = Mask.load(folder.mask(leaderboard.rows[0].milestone)).metadata
    if not isinstance(metadata.get("shape"), dict) or "model_type" not in (
        metadata.get("checkpoint") or {}
    ):
        raise StorageError(
            f"study {folder.root}: its masks do not say what they were made for; run `distprune "
            "search` again and they are written anew"
        )
    return metadata


def _find_latencies(
    folder: StudyFolder, question: Question, architecture: Architecture
) -> LayerLatencies | None:
    is_own = question.latency_table is None and folder.latency_table.is_file()
    path = folder.latency_table if is_own else question.latency_table
    if path is None:
        if question.max_latency_ms is not None:
            raise ConfigError(
                "--max-latency-ms: takes a table; measure one with distprune bench MODEL --table "
                "FILE and say --latency-table FILE"
            )
        return None
    table = read_table(locate_table(path))
    table.check_architecture(architecture)
    if not is_own and not question.any_machine:
        _check_machine(table)
    return table.select(batch=question.batch, length=question.length, threads=question.threads)


def _check_machine(table: LatencyTable) -> None:
    from distprune.deployment.machine import describe_machine

    device = "cuda" if table.machine.accelerator else "cpu"
    table.check_machine(describe_machine(device), "--any-machine")
