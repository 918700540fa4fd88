"""What a study answers to constraints: the best level that meets them, and the fronts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distprune.cli.constraint_question import Question
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

NUM_TOKENS = 128
"""Tokens that MACs are counted for where no table says which."""


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
            f"study {folder.reference}: its masks do not say what they were made for; run "
            "`distprune search` again and they are written anew"
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
