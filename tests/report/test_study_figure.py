"""The figure of a study: its lines before they are drawn, and the picture."""

from __future__ import annotations

import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from distprune.core.retention import Reference
from distprune.library.history import Outcome, TrialRecord, read_trials
from distprune.report.study_figure import (
    COLOURS,
    best_at_milestones,
    build_study_figure,
    draw_study,
)
from tests.report.pictures import read_size
from tests.tracking.events import LEVELS, MILESTONES, REFERENCE, make_level, run_trial


@pytest.fixture
def trials() -> dict[int, TrialRecord]:
    weak = [LEVELS[0], make_level(1, 0.25, 0.85)]
    events = [
        *run_trial(0),
        *run_trial(1, Outcome.STOPPED, weak),
        *run_trial(2, Outcome.FAILED, []),
        *run_trial(3, None, [LEVELS[0], make_level(1, 0.5, 0.6)]),
    ]
    return read_trials(iter(events))


def lines(figure: Figure) -> dict[str, object]:
    return {str(line.get_label()): line for line in figure.axes[0].get_lines()}


def test_levels_of_every_trial_are_shown(trials: dict[int, TrialRecord]) -> None:
    figure = build_study_figure(trials, MILESTONES, REFERENCE, "accuracy")
    shown = lines(figure)
    assert shown["trial 0"].get_xydata().tolist() == [[0.0, 0.9], [0.25, 0.8], [0.5, 0.7]]
    assert shown["trial 1"].get_xydata().tolist() == [[0.0, 0.9], [0.25, 0.85]]
    assert shown["trial 3"].get_xydata().tolist() == [[0.0, 0.9], [0.5, 0.6]]
    assert same_color(shown["trial 1"].get_color(), COLOURS[Outcome.STOPPED])
    assert not same_color(COLOURS[Outcome.STOPPED], COLOURS[Outcome.COMPLETED])


def test_best_at_each_milestone(trials: dict[int, TrialRecord]) -> None:
    assert best_at_milestones(trials, MILESTONES, REFERENCE) == {0.25: 0.85, 0.5: 0.7}
    figure = build_study_figure(trials, MILESTONES, REFERENCE, "accuracy")
    thick = max(figure.axes[0].get_lines(), key=lambda line: line.get_linewidth())
    assert thick.get_xydata().tolist() == [[0.25, 0.85], [0.5, 0.7]]


def test_milestone_that_nobody_reached() -> None:
    trials = read_trials(run_trial(0, Outcome.STOPPED, LEVELS[:2]))
    assert best_at_milestones(trials, MILESTONES, REFERENCE) == {0.25: 0.8}


def test_best_of_a_metric_whose_lower_values_are_better() -> None:
    lower = Reference(dense=0.1, floor=0.9, higher_is_better=False)
    better = [make_level(0, 0.0, 0.1), make_level(1, 0.25, 0.2)]
    worse = [make_level(0, 0.0, 0.1), make_level(1, 0.25, 0.3)]
    events = [
        *run_trial(0, Outcome.STOPPED, worse, reference=lower),
        *run_trial(1, Outcome.STOPPED, better, reference=lower),
    ]
    trials = read_trials(iter(events))
    assert best_at_milestones(trials, MILESTONES, lower) == {0.25: 0.2}
    figure = build_study_figure(trials, MILESTONES, lower, "loss")
    assert figure.axes[0].get_ylabel() == "loss (lower is better)"


def test_reference_lines_are_labelled(trials: dict[int, TrialRecord]) -> None:
    figure = build_study_figure(trials, MILESTONES, REFERENCE, "accuracy")
    axes = figure.axes[0]
    labels = {text.get_text(): text.xy[1] for text in axes.texts}
    assert labels == {"dense\n0.9": 0.9, "constant predictor\n0.5": 0.5}
    levels = {tuple(line.get_ydata()) for line in axes.get_lines() if line.get_linestyle() == "--"}
    assert levels == {(0.9, 0.9), (0.5, 0.5)}
    assert axes.get_xlabel() == "sparsity (removed / total units)"


def test_legend_names_only_what_is_shown(trials: dict[int, TrialRecord]) -> None:
    figure = build_study_figure(trials, MILESTONES, REFERENCE, "accuracy")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "best at milestone",
        "trial completed",
        "trial stopped",
        "trial running",
    ]


def test_picture(trials: dict[int, TrialRecord]) -> None:
    assert read_size(draw_study(trials, MILESTONES, REFERENCE, "accuracy")) == (800, 520)


def test_study_without_trials() -> None:
    assert read_size(draw_study({}, MILESTONES, REFERENCE, "accuracy")) == (800, 520)
