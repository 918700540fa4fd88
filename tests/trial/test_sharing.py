"""What trials share, what they do not, and what is computed again after a loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distprune.store.store import Store
from distprune.trial.runner import run_trial
from tests.trial.canned import CHECKPOINT, CONTEXT, computed, make_pruning, make_stages, walk


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_trial_computes_each_stage_once(store: Store) -> None:
    stages = make_stages(store, pruning=make_pruning())
    walk(stages)
    assert computed(stages) == [
        "dense",
        "evaluate",
        "snapshot",
        "score",
        "score",
        "retrain",
        "evaluate",
    ]


def test_two_coefficients_with_the_same_mask_share_one_retraining(store: Store) -> None:
    first = make_stages(store, pruning=make_pruning(0.5))
    second = make_stages(store, pruning=make_pruning(0.5 + 1e-9))
    assert walk(first) == walk(second)
    assert computed(first).count("retrain") == 1
    assert computed(second) == []


def test_other_masks_are_trained_on_their_own(store: Store) -> None:
    first = make_stages(store, pruning=make_pruning(0.0))
    second = make_stages(store, pruning=make_pruning(1.0))
    assert walk(first) != walk(second)
    assert computed(second) == ["score", "retrain", "evaluate"]


def test_seeds_share_nothing(store: Store) -> None:
    walk(make_stages(store, pruning=make_pruning()))
    other = make_stages(store, pruning=make_pruning(), seed=1)
    walk(other)
    assert computed(other) == [
        "dense",
        "evaluate",
        "snapshot",
        "score",
        "score",
        "retrain",
        "evaluate",
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"retraining": {"learning_rate": 1e-4}},
        {"retraining": {"distillation": {"weight": 0.5}}},
        {"pruning": make_pruning(rewinding=0.5)},
    ],
)
def test_how_to_retrain_decides_the_retraining_only(store: Store, settings: dict[str, Any]) -> None:
    walk(make_stages(store, pruning=make_pruning()))
    other = make_stages(store, **{"pruning": make_pruning()} | settings)
    walk(other)
    assert [stage for stage in computed(other) if stage != "snapshot"] == ["retrain", "evaluate"]


@pytest.mark.parametrize(
    ("change", "recomputed"),
    [
        ({"checkpoint": replace(CHECKPOINT, fingerprint="0" * 64)}, True),
        ({"prepared": "0" * 64}, True),
        ({"precision": "bfloat16"}, True),
        ({"checkpoint": replace(CHECKPOINT, name="x", location="/moved")}, False),
    ],
)
def test_the_surroundings_decide_the_keys_but_places_do_not(
    store: Store, change: dict[str, Any], recomputed: bool
) -> None:
    walk(make_stages(store, pruning=make_pruning()))
    other = make_stages(store, replace(CONTEXT, **change), pruning=make_pruning())
    walk(other)
    assert bool(computed(other)) is recomputed
    assert computed(other).count("dense") == recomputed


def test_a_trial_that_runs_again_computes_nothing(store: Store) -> None:
    masks = walk(make_stages(store))
    again = make_stages(store)
    assert walk(again) == masks
    assert computed(again) == []


def test_one_damaged_entry_is_computed_again_and_nothing_else(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    results = list(run_trial(make_stages(store)))
    entry = store.find(results[2].lineage.weights)
    assert entry is not None
    entry.path("weights.safetensors").write_text("damaged")
    again = make_stages(store)
    assert [r.lineage for r in run_trial(again)] == [r.lineage for r in results]
    assert computed(again) == ["retrain"]
    assert "damaged" in caplog.text


def test_what_all_trials_need_is_shared(store: Store) -> None:
    stages = make_stages(store)
    walk(stages)
    stages.probe()
    shared = [(r.stage, r.is_shared) for r in stages.executor.requests]  # type: ignore[attr-defined]
    assert ("dense", True) in shared
    assert ("probe", True) in shared
    # In mid-search nothing waits for all cores: other trials would never leave them free at once.
    assert not {("score", True), ("retrain", True), ("evaluate", True)} & set(shared)


def test_the_lineage_of_a_level_is_in_the_store(store: Store) -> None:
    for result in run_trial(make_stages(store)):
        lineage = result.lineage
        scores = (lineage.evidence.pretrained_key, lineage.evidence.finetuned_key)
        named = [("evaluate", lineage.evaluation)]
        named += [("dense" if result.level == 0 else "retrain", lineage.weights)]
        named += [("score", key) for key in scores if key is not None]
        assert len(named) == (4 if result.level else 2)
        for stage, key in named:
            entry = store.find(key)
            assert entry is not None
            assert entry.record["stage"] == stage
