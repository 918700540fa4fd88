"""An answer to constraints as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from distprune.cli.latency_display import NOTHING, format_ms
from distprune.cli.tables import format_parameters
from distprune.library.constraints import Constraints, Cost, Point, find_front, list_costs

if TYPE_CHECKING:
    from distprune.cli.constraint_answer import Answer


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
