"""What people see of a confirmation: its tables, its line in the results, forgetting by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from distprune.core.units import UnitKind
from distprune.library.confirmation import (
    BEST,
    Arm,
    Confirmation,
    ConfirmedMask,
    choose_unit,
    describe_arm,
    format_difference,
    list_outdated,
    read_confirmation,
)
from distprune.library.forgetting import Forgetting, list_values, read_forgetting
from distprune.library.leaderboard import Leaderboard
from distprune.library.mixing_paths import format_milestones
from distprune.library.study_folder import StudyFolder


def show_trust(console: Console, folder: StudyFolder, leaderboard: Leaderboard) -> None:
    """Print what `distprune confirm` has found out about a study; nothing where it has not run.

    Raises:
        StorageError: A file of it cannot be read.
    """
    confirmation = read_confirmation(folder)
    if confirmation is not None:
        lines = ["", *summarise_confirmation(confirmation, leaderboard)]
        console.print(Text("\n".join(lines)))
    forgetting = read_forgetting(folder)
    if forgetting:
        console.print(format_forgetting(forgetting))


def collect_trust(folder: StudyFolder) -> dict[str, Any]:
    """Return the same as JSON values by name; empty where `distprune confirm` has not run.

    Raises:
        StorageError: A file of it cannot be read.
    """
    confirmation, forgetting = read_confirmation(folder), read_forgetting(folder)
    values: dict[str, Any] = {}
    if confirmation is not None:
        values["confirmation"] = confirmation.to_values()
    if forgetting:
        values["forgetting"] = list_values(forgetting)
    return values


def summarise_confirmation(confirmation: Confirmation, leaderboard: Leaderboard) -> list[str]:
    """Return a line for each confirmed mask, and one if the study has other best masks now."""
    lines = []
    for mask in confirmation.masks:
        statements = [_summarise_arm(arm, confirmation.metric) for arm in mask.arms[1:]]
        own = "" if mask.report_metric is None else f" (own run {mask.report_metric:.4f})"
        lines.append(
            f"Confirmed at {format_milestones(mask.milestones)} with {len(mask.seeds)} fresh "
            f"seeds: {_format_metrics(mask.best)} on report{own}; "
            + "; ".join(statement for statement in statements if statement)
        )
    outdated = list_outdated(confirmation, leaderboard)
    if outdated:
        lines.append(
            f"At {format_milestones(outdated)} the study has found another best mask since; run "
            "`distprune confirm` again"
        )
    return lines


def show_confirmation(console: Console, confirmation: Confirmation) -> None:
    """Print a table for each best mask, and how to read them."""
    for mask in confirmation.masks:
        console.print(format_confirmed_mask(mask, confirmation))
    console.print(Text(explain_confirmation(confirmation)))


def format_confirmed_mask(mask: ConfirmedMask, confirmation: Confirmation) -> RenderableType:
    """Return a best mask and its controls as a table, with what the study itself had below."""
    title = (
        f"{confirmation.study}, {format_milestones(mask.milestones)} removed (trial {mask.trial}, "
        f"level {mask.level})"
    )
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("mask")
    table.add_column("seeds", justify="right")
    table.add_column(f"{confirmation.metric}\nreport", justify="right")
    table.add_column("best - mask", justify="right")
    table.add_column("the best is")
    for arm in mask.arms:
        table.add_row(
            arm.title,
            str(len(arm.metrics)) if arm.metrics else "-",
            _format_metrics(arm),
            _format_difference(arm, confirmation.metric),
            _judge(arm),
        )
    notes = [f"{arm.title}: {arm.note}" for arm in mask.arms if arm.note]
    lines = [f"All arms: {mask.training}.", _show_curse(mask), *notes]
    return Group(table, Text("\n".join(lines)))


def explain_confirmation(confirmation: Confirmation) -> str:
    """Return how the numbers of a confirmation have to be read."""
    looks = ", ".join(map(str, confirmation.looks))
    unit = choose_unit(confirmation.metric)[1]
    points = f"in points (hundredths of {confirmation.metric})" if unit else "as the metric is"
    direction = "" if confirmation.higher_is_better else " (lower is better, positive = best wins)"
    return (
        f"\nMean ± standard deviation over seeds. Differences {points}{direction} with intervals "
        f"of {confirmation.confidence * 100:.3g} % over seeds and the {confirmation.examples:,} "
        f"examples of the report split ({confirmation.resamples:,} draws). Comparisons were looked "
        f"at after {looks} seeds, and the looks share an error of 5 %; each comparison is judged "
        "alone."
    )


def format_forgetting(domains: Sequence[Forgetting]) -> RenderableType:
    """Return the rank correlation of pre-trained and fine-tuned importance of each layer."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title="Forgetting: rank correlation of pre-trained and fine-tuned importance",
        title_justify="left",
    )
    table.add_column("layer", justify="right")
    for found in domains:
        for kind in UnitKind:
            table.add_column(f"{found.domain}\n{kind}s", justify="right")
    num_layers = max(len(found.mean(kind)) for found in domains for kind in UnitKind)
    for layer in range(num_layers):
        cells = [_format_correlation(found, kind, layer) for found in domains for kind in UnitKind]
        table.add_row(str(layer), *cells)
    objectives = ", ".join(sorted({found.pretrained_objective for found in domains}))
    explanation = (
        "Spearman's ρ, mean [lowest, highest] of seeds; 1 = fine-tuning has not changed which "
        f"units of a layer matter. Pre-trained importance by {objectives}."
    )
    return Group(table, Text(explanation))


def _summarise_arm(arm: Arm, metric: str) -> str:
    statement = describe_arm(arm, metric)
    return f"{arm.title}: {statement}" if arm.difference is None and statement else statement


def _format_metrics(arm: Arm) -> str:
    if arm.mean is None:
        return "-"
    deviation = "" if arm.deviation is None else f" ± {arm.deviation:.4f}"
    return f"{arm.mean:.4f}{deviation}"


def _format_difference(arm: Arm, metric: str) -> str:
    if arm.difference is None:
        return ""
    return format_difference(arm.difference, metric).removesuffix(choose_unit(metric)[1])


def _judge(arm: Arm) -> str:
    if arm.name == BEST:
        return ""
    if arm.difference is None:
        return "not compared"
    if not arm.difference.is_settled:
        return "not distinguishable"
    return "better" if arm.difference.low > 0 else "worse"


def _show_curse(mask: ConfirmedMask) -> str:
    """Say how the study's own run did, beside the fresh seeds: the winner's curse."""
    report = "" if mask.report_metric is None else f", {mask.report_metric:.4f} on report"
    fresh = "" if mask.best.mean is None else f"; fresh seeds on report: {mask.best.mean:.4f}"
    return (
        f"The study's own run: {mask.search_metric:.4f} on search, where it was chosen{report}"
        f"{fresh}."
    )


def _format_correlation(found: Forgetting, kind: UnitKind, layer: int) -> str:
    mean = found.mean(kind)
    if layer >= len(mean) or not np.isfinite(mean[layer]):
        return "-"
    low, high = (values[layer] for values in found.range(kind))
    spread = f" [{low:.2f}, {high:.2f}]" if len(found.seeds) > 1 else ""
    return f"{mean[layer]:.2f}{spread}"
