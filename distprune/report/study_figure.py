"""The figure of a study: metric against sparsity, all trials, and the best at each milestone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from distprune.core.retention import Reference
from distprune.library.history import Outcome, TrialRecord
from distprune.library.leaderboard import choose_best
from distprune.report.canvas import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PALE_BLUE,
    PALE_GREY,
    RED,
    create_figure,
    render,
    style_axes,
)

COLOURS: dict[Outcome | None, str] = {
    Outcome.COMPLETED: BLUE,
    Outcome.STOPPED: PALE_BLUE,
    Outcome.DIVERGED: ORANGE,
    Outcome.FAILED: ORANGE,
    None: GREEN,
}
"""Colour of a trial by its outcome; None = it runs, or was cut off."""


def draw_study(
    trials: Mapping[int, TrialRecord],
    milestones: Sequence[float],
    reference: Reference,
    metric_name: str,
) -> bytes:
    """Draw the metric on the search split against sparsity as PNG; see `build_study_figure`."""
    return render(build_study_figure(trials, milestones, reference, metric_name))


def build_study_figure(
    trials: Mapping[int, TrialRecord],
    milestones: Sequence[float],
    reference: Reference,
    metric_name: str,
) -> Figure:
    """Return a figure with a thin line per trial and a thick one for the best at each milestone.

    Args:
        trials: The study's trials by number.
        milestones: Sparsities of the study's grid, increasing.
        reference: Dense metric and floor of the study.
        metric_name: Name of the task's metric.
    """
    figure = create_figure(8.0, 5.2)
    axes = figure.add_axes((0.095, 0.19, 0.74, 0.74))
    title = f"{metric_name} on the search split, {len(trials)} trials"
    style_axes(
        axes, title, "sparsity (removed / total units)", _name_metric(metric_name, reference)
    )
    axes.grid(color=PALE_GREY, linewidth=0.6)
    axes.set_axisbelow(True)
    for milestone in milestones:
        axes.axvline(milestone, color=PALE_GREY, linewidth=1.0, linestyle=":", zorder=0.5)
    for trial in trials.values():
        _draw_trial(axes, trial)
    best = best_at_milestones(trials, milestones, reference)
    axes.plot(list(best), list(best.values()), color=BLACK, linewidth=2.6, marker="o", zorder=4)
    limits = (0.0, max(milestones) * 1.04)
    axes.set_xlim(*limits)
    for name, value, colour in (
        ("dense", reference.dense, GREEN),
        ("constant predictor", reference.floor, RED),
    ):
        axes.axhline(value, color=colour, linewidth=1.2, linestyle="--", zorder=3)
        axes.annotate(
            f"{name}\n{value:.4g}",
            (1.0, value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=9,
        )
    _draw_legend(figure, trials)
    return figure


def best_at_milestones(
    trials: Mapping[int, TrialRecord], milestones: Sequence[float], reference: Reference
) -> dict[float, float]:
    """Return the metric of the leaderboard's choice at each milestone that any trial reached."""
    chosen = {
        milestone: choose_best(trials.values(), milestone, reference.higher_is_better)
        for milestone in milestones
    }
    return {milestone: best.result.metric for milestone, best in chosen.items() if best}


def _draw_trial(axes: Axes, trial: TrialRecord) -> None:
    outcome = trial.end.outcome if trial.end else None
    levels = trial.levels
    axes.plot(
        [level.sparsity for level in levels],
        [level.metric for level in levels],
        color=COLOURS[outcome],
        linewidth=0.9,
        marker=".",
        markersize=4,
        alpha=0.8,
        label=f"trial {trial.number}",
        zorder=2 if outcome is Outcome.STOPPED else 2.5,
    )


def _name_metric(metric_name: str, reference: Reference) -> str:
    direction = "higher" if reference.higher_is_better else "lower"
    return f"{metric_name} ({direction} is better)"


def _draw_legend(figure: Figure, trials: Mapping[int, TrialRecord]) -> None:
    drawn = [trial for trial in trials.values() if trial.levels]
    found = {trial.end.outcome if trial.end else None for trial in drawn}
    names: dict[str, str] = {}
    for outcome, colour in COLOURS.items():
        if outcome in found:
            name = str(outcome) if outcome else "running"
            names[colour] = f"{names[colour]} or {name}" if colour in names else f"trial {name}"
    handles = [Line2D([], [], color=BLACK, linewidth=2.6, marker="o", label="best at milestone")]
    handles += [
        Line2D([], [], color=colour, linewidth=1.2, marker=".", label=name)
        for colour, name in names.items()
    ]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.08, 0.0),
        ncols=5,
        fontsize=9,
        frameon=False,
    )
