"""Mixing paths of a study's best levels, from a real store; what hinders them is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distprune.core.importance_scores import Normalisation, normalise
from distprune.core.mask import Mask
from distprune.core.mixing_path import trace_mixing_path
from distprune.core.selection import SelectionRule
from distprune.core.units import UnitKind
from distprune.errors import StorageError
from distprune.library.history import Event, MilestoneReached, read_trials
from distprune.library.mixing_paths import (
    PathSummary,
    TracedLevel,
    describe_path,
    explain_no_path,
    format_milestones,
    locate_paths,
    read_paths,
    trace_best_levels,
    write_paths,
)
from distprune.library.study_folder import StudyFolder
from distprune.methods.spec import PruningSpec
from distprune.store.store import Store
from tests.library.scored_study import make_scores, run_scored_trial
from tests.tracking.events import MILESTONES, SHAPE
from tests.tracking.events import make_spec as make_trial_spec

CONVEX = {"operator": "convex", "coefficient": 0.3}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def trace(store: Store, *trials: list[Event]) -> list[TracedLevel]:
    records = read_trials(iter([event for events in trials for event in events]))
    return trace_best_levels(store, records, MILESTONES, higher_is_better=True)


def last_mask(events: list[Event], level: int) -> Mask:
    levels = [
        result
        for event in events
        if isinstance(event, MilestoneReached)
        for result in event.report.new_levels
    ]
    return levels[level].mask


def test_each_level_is_traced_from_the_one_before(store: Store) -> None:
    events = run_scored_trial(store, mixing=CONVEX)
    first, second = trace(store, events)
    for traced, level, live in (
        (first, 1, Mask.dense(SHAPE)),
        (second, 2, last_mask(events, 1)),
    ):
        expected = trace_mixing_path(
            normalise(make_scores(2 * level), live, Normalisation.L2),
            normalise(make_scores(2 * level + 1), live, Normalisation.L2),
            live,
            MILESTONES[level - 1],
            SelectionRule(tuple(UnitKind)),
        )
        assert traced.path == expected
        assert traced.path.num_masks() > 3
        assert traced.path.mask_at(0.3) == last_mask(events, level)
        summary = traced.summary
        assert (summary.trial, summary.level, summary.coefficient) == (0, level, 0.3)
        assert (summary.milestones, summary.reason) == ((MILESTONES[level - 1],), None)
        assert summary.parts is not None
        for name, kind in (("head", UnitKind.HEAD), ("neuron", UnitKind.NEURON), ("whole", None)):
            part = summary.parts[name]
            assert part.masks == expected.num_masks(kind)
            assert part.breakpoints == part.masks - 1
            assert part.interval == tuple(map(float, expected.interval_at(0.3, kind)))
            assert part.interval[0] <= 0.3 < part.interval[1]
        low, high = summary.parts["whole"].interval
        assert low == max(summary.parts[name].interval[0] for name in ("head", "neuron"))
        assert high == min(summary.parts[name].interval[1] for name in ("head", "neuron"))


def test_best_trial_of_each_milestone_is_traced(store: Store) -> None:
    weak = run_scored_trial(store, 0, (0.9, 0.7, 0.6), mixing=CONVEX)
    strong = run_scored_trial(store, 1, (0.9, 0.6, 0.8), mixing={**CONVEX, "coefficient": 0.7})
    (only,) = trace(store, weak, strong)
    assert (only.summary.trial, only.summary.level) == (1, 2)
    assert only.summary.milestones == MILESTONES
    assert only.summary.coefficient == 0.7
    assert trace(store) == []


@pytest.mark.parametrize(
    ("settings", "coefficient", "reason"),
    [
        (
            {"mixing": {"coefficient": 0.0}},
            0.0,
            "only the fine-tuned importance was measured (λ = 0)",
        ),
        (
            {"mixing": {"coefficient": 1.0}},
            1.0,
            "only the pre-trained importance was measured (λ = 1)",
        ),
        (
            {"mixing": {"operator": "finetuned"}},
            None,
            "only the fine-tuned importance was measured (operator finetuned)",
        ),
        (
            {"mixing": {"operator": "max"}},
            None,
            "operator max has no mixing path; it is traced for convex only",
        ),
        (
            {"mixing": {"operator": "geometric", "coefficient": 0.5}},
            0.5,
            "operator geometric has no mixing path; it is traced for convex only",
        ),
        (
            {"importance": {"criterion": "random"}},
            None,
            "its scores are random and not mixed",
        ),
        (
            {"selection": {"allocation": "joint_macs"}},
            0.5,
            "allocation joint_macs has no mixing path; only separate has",
        ),
        (
            {"selection": {"min_heads_per_layer": 1}},
            0.5,
            "min units per layer {'head': 1} has no mixing path; only 0 has",
        ),
    ],
)
def test_level_without_a_path_says_why(
    settings: dict[str, Any], coefficient: float | None, reason: str, store: Store
) -> None:
    spec = PruningSpec.model_validate(make_trial_spec(**settings)["pruning"])
    assert explain_no_path(spec) == reason
    for traced in trace(store, run_scored_trial(store, **settings)):
        assert traced.path is None
        summary = traced.summary
        assert (summary.coefficient, summary.parts, summary.reason) == (coefficient, None, reason)


def test_settings_with_a_path() -> None:
    spec = PruningSpec.model_validate(make_trial_spec(mixing=CONVEX)["pruning"])
    assert explain_no_path(spec) is None


def test_scores_that_are_gone(store: Store, tmp_path: Path) -> None:
    events = run_scored_trial(store, mixing=CONVEX)
    for traced in trace(Store(str(tmp_path / "another")), events):
        assert traced.summary.reason == "its scores are no longer in the store"
        assert traced.path is None


def test_scores_that_do_not_choose_the_mask(store: Store) -> None:
    pretending = run_scored_trial(store, mixing=CONVEX)
    pretending[0] = run_scored_trial(store, mixing={**CONVEX, "coefficient": 0.9})[0]
    reasons = [traced.summary.reason for traced in trace(store, pretending)]
    expected = "the scores in the store do not choose its mask; they were measured again since"
    assert reasons == [expected, expected]


def test_level_before_that_is_lost(store: Store) -> None:
    events = run_scored_trial(store, mixing=CONVEX)
    (only,) = trace(store, [event for event in events if not is_first_report(event)])
    assert (only.path, only.summary.level) == (None, 2)
    assert only.summary.reason == "level 1, which it goes on from, is not in the history"


def is_first_report(event: Event) -> bool:
    return isinstance(event, MilestoneReached) and event.report.milestone == 1


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path, "tiny")


def test_file_is_read_back_and_always_the_same(folder: StudyFolder, store: Store) -> None:
    mixed = run_scored_trial(store, 0, (0.9, 0.8, 0.6), mixing=CONVEX)
    single = run_scored_trial(store, 1, (0.9, 0.7, 0.7), mixing={"coefficient": 0.0})
    levels = trace(store, mixed, single)
    assert [level.path is None for level in levels] == [False, True]
    write_paths(folder, levels)
    assert read_paths(folder) == [level.summary for level in levels]
    before = locate_paths(folder).read_bytes()
    write_paths(folder, trace(store, mixed, single))
    assert locate_paths(folder).read_bytes() == before
    assert json.loads(before)["schema"] == "distprune.mixing_path/1"


def test_study_without_the_file(folder: StudyFolder) -> None:
    assert read_paths(folder) == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": "other", "levels": []}', '{"schema": "distprune.mixing_path/1"}'],
)
def test_damaged_file(folder: StudyFolder, text: str) -> None:
    locate_paths(folder).parent.mkdir(parents=True)
    locate_paths(folder).write_text(text)
    with pytest.raises(StorageError, match="run `distprune search` again") as caught:
        read_paths(folder)
    assert str(locate_paths(folder)) in str(caught.value)


@pytest.mark.parametrize(
    ("milestones", "text"),
    [((0.1,), "10 %"), ((0.3, 0.5), "30 and 50 %"), ((0.1, 0.125, 0.2), "10, 12.5 and 20 %")],
)
def test_milestones_in_words(milestones: tuple[float, ...], text: str) -> None:
    assert format_milestones(milestones) == text


def test_paths_in_words(store: Store) -> None:
    (level,) = trace(store, run_scored_trial(store, metrics=(0.9, 0.6, 0.7), mixing=CONVEX))
    parts = level.summary.parts
    assert parts is not None
    assert describe_path(level.summary) == (
        f"λ over [0, 1] could have kept {parts['head'].masks} different sets of heads and "
        f"{parts['whole'].masks} different whole masks"
    )
    without = PathSummary((0.5,), 0, 1, 0.5, 0.0, None, "it rained")
    assert describe_path(without) == "no mixing path: it rained"
