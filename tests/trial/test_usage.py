"""What a trial used, each stage once, and who computed it."""

from __future__ import annotations

import platform
from pathlib import Path

from distprune.store.store import Store
from distprune.trial.results import LevelResult
from distprune.trial.runner import run_trial
from distprune.trial.usage import StageUse, Usage, count_hosts, sum_up
from tests.trial.canned import make_pruning, make_stages


def test_the_first_trial_computes_and_the_second_reuses(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    first, second = ([*run_trial(make_stages(store, pruning=make_pruning(0.5)))] for _ in range(2))
    for levels, is_computed in ((first, True), (second, False)):
        uses = [use for level in levels for use in level.uses]
        assert [use.stage for use in levels[0].uses] == ["dense", "evaluate"]
        assert [use.stage for use in levels[1].uses] == [
            "snapshot",
            "score",
            "score",
            "retrain",
            "evaluate",
        ]
        assert {use.is_computed for use in uses} == {is_computed}
    assert sum(use.num_bytes for level in first for use in level.uses) > 0


def test_levels_share_a_stage_and_count_it_once(tmp_path: Path) -> None:
    """Each level rewinds to the same snapshot of the same dense run."""
    pruning = {"schedule": {"levels": 3}, "rewinding": 0.5}
    stages = make_stages(Store(str(tmp_path / "store")), pruning=pruning)
    keys = [use.key for level in run_trial(stages) for use in level.uses]
    assert len(keys) == len(set(keys))
    assert [use.stage for use in list(run_trial(stages))[0].uses] == []  # noqa: RUF015


def test_sums() -> None:
    uses = [
        StageUse("dense", "a", True, 10.0, 100),
        StageUse("score", "b", False, 2.0, 30),
        StageUse("score", "c", True, 1.0, 5),
    ]
    assert sum_up(uses) == Usage(2, 1, 11.0, 2.0, 105)
    assert sum_up([]) == Usage()


def test_uses_survive_json(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    for level in run_trial(make_stages(store, pruning=make_pruning())):
        assert LevelResult.from_json(level.to_json()).uses == level.uses


def test_hosts_are_those_of_computed_stages() -> None:
    uses = [
        StageUse("dense", "a", True, 10.0, 100, "h2"),
        StageUse("score", "b", False, 2.0, 30, "h3"),
        StageUse("score", "c", True, 1.0, 5, "h1"),
        StageUse("score", "d", True, 1.0, 5, "h2"),
        StageUse("score", "e", True, 1.0, 5),
    ]
    assert count_hosts(uses) == {"h1": 1, "h2": 2}


def test_stage_names_the_host_that_computed_it(tmp_path: Path) -> None:
    levels = run_trial(make_stages(Store(str(tmp_path / "store")), pruning=make_pruning()))
    assert {use.host for level in levels for use in level.uses} == {platform.node()}
