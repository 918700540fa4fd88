"""Control trials change one setting, and what they find is found without more than they need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distprune.core.importance_scores import Criterion
from distprune.library.control_trials import (
    Control,
    change_trial,
    explain_no_trial,
    find_masks,
    finds_the_same,
)
from distprune.store.store import Store
from distprune.trial.runner import run_trial
from distprune.trial.spec import TrialSpec
from tests.library.graded import make_spec
from tests.trial.canned import CHECKPOINT, computed, make_pruning, make_stages

TRIALS = [Control.LAMBDA_0, Control.LAMBDA_1, Control.MAGNITUDE]


def make_trial(coefficient: float = 0.5, operator: str = "convex", **importance: Any) -> TrialSpec:
    mixing = {"operator": operator, "coefficient": coefficient}
    return make_spec(pruning=make_pruning(mixing=mixing, importance=importance))


@pytest.mark.parametrize("control", TRIALS)
def test_one_setting_is_changed(control: Control) -> None:
    spec = make_trial()
    changed = change_trial(spec, control)
    before, after = spec.model_dump(), changed.model_dump()
    pruning = {
        name for name in before["pruning"] if before["pruning"][name] != after["pruning"][name]
    }
    assert pruning == {"importance" if control is Control.MAGNITUDE else "mixing"}
    assert {name for name in before if before[name] != after[name]} == {"pruning"}
    assert changed == TrialSpec.model_validate(changed.model_dump())


def test_sources_of_the_controls() -> None:
    spec = make_trial()
    assert change_trial(spec, Control.LAMBDA_0).pruning.sources == (False, True)
    assert change_trial(spec, Control.LAMBDA_1).pruning.sources == (True, False)
    magnitude = change_trial(spec, Control.MAGNITUDE).pruning
    assert magnitude.importance.criterion is Criterion.MAGNITUDE
    assert magnitude.sources == spec.pruning.sources


@pytest.mark.parametrize("control", [Control.RANDOM, Control.INVERTED])
def test_what_is_drawn_is_no_trial(control: Control) -> None:
    assert not control.is_trial
    with pytest.raises(ValueError, match="drawn at random"):
        change_trial(make_trial(), control)


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        (make_trial(0.5), []),
        (make_trial(0.0), [Control.LAMBDA_0]),
        (make_trial(1.0), [Control.LAMBDA_1]),
        (make_trial(0.5, "finetuned"), [Control.LAMBDA_0]),
        (make_trial(0.5, "pretrained"), [Control.LAMBDA_1]),
        (make_trial(0.0, "max"), []),
        (make_trial(0.5, criterion="magnitude"), [Control.MAGNITUDE]),
        (make_trial(0.0, criterion="magnitude"), [Control.LAMBDA_0, Control.MAGNITUDE]),
        (make_trial(0.5, criterion="random"), [Control.LAMBDA_0, Control.LAMBDA_1]),
    ],
)
def test_change_that_changes_nothing_is_known(spec: TrialSpec, same: list[Control]) -> None:
    assert [control for control in TRIALS if finds_the_same(spec, control)] == same


@pytest.mark.parametrize("control", TRIALS)
@pytest.mark.parametrize(
    ("coefficient", "criterion"), [(0.0, "abs_gradient"), (1.0, "abs_gradient"), (0.5, "random")]
)
def test_same_masks_are_really_found(
    control: Control, coefficient: float, criterion: str, tmp_path: Path
) -> None:
    stages = make_stages(
        Store(str(tmp_path)), pruning=make_pruning(coefficient, importance={"criterion": criterion})
    )
    own = [result.mask for result in run_trial(stages)]
    changed = replace(stages, spec=change_trial(stages.spec, control))
    is_same = [result.mask for result in run_trial(changed)] == own
    assert finds_the_same(stages.spec, control) == is_same


def test_pretrained_importance_needs_its_objective() -> None:
    bare = replace(CHECKPOINT, has_mlm_head=False)
    spec = make_trial(0.0, pretrained_objective="mlm")
    assert explain_no_trial(spec, Control.LAMBDA_0, bare) is None
    assert "mlm" in (explain_no_trial(spec, Control.LAMBDA_1, bare) or "").lower()
    assert explain_no_trial(spec, Control.LAMBDA_1, CHECKPOINT) is None
    assert explain_no_trial(spec, Control.MAGNITUDE, bare) is None
    assert explain_no_trial(make_trial(0.0), Control.LAMBDA_1, bare) is None


def test_masks_are_found_up_to_the_last_level_that_is_asked_for(tmp_path: Path) -> None:
    pruning = {"target_sparsity": 0.6, "schedule": {"levels": 3}}
    stages = make_stages(Store(str(tmp_path / "a")), pruning=pruning)
    all_masks = {result.level: result.mask for result in run_trial(stages)}
    other = make_stages(Store(str(tmp_path / "b")), pruning=pruning)
    assert find_masks(other, {2}) == {2: all_masks[2]}
    assert computed(other).count("retrain") == 2
    assert find_masks(other, {1, 3}) == {1: all_masks[1], 3: all_masks[3]}
