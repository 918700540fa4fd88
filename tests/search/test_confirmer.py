"""A confirmation without Ray, of models that are as good as the units they keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import DivergedTrialError
from distprune.library.confirmation import Arm, ConfirmedMask
from distprune.library.control_trials import Control
from distprune.search.comparison import BestMask
from distprune.search.confirmer import SAME_MASK, Confirmer, TrainingDone, Trust, compare_sizes
from distprune.store.store import Store
from distprune.trial.runner import run_trial
from distprune.trial.stages import TrialStages
from tests.core.mask_strategies import make_mask
from tests.library.graded import (
    make_good_mask,
    make_graded_stages,
    make_row,
    make_spec,
    run_inline,
)
from tests.trial.canned import make_pruning

DRAWN = (Control.RANDOM, Control.INVERTED)


@dataclass
class Watcher:
    """Remembers what it hears."""

    phases: list[str] = field(default_factory=list)
    trainings: list[TrainingDone] = field(default_factory=list)

    def on_phase(self, text: str) -> None:
        self.phases.append(text)

    def on_training(self, training: TrainingDone) -> None:
        self.trainings.append(training)


@dataclass
class Confirming:
    """A confirmation in a store of its own."""

    folder: Path
    watcher: Watcher = field(default_factory=Watcher)

    def run(
        self,
        *bests: BestMask,
        controls: tuple[Control, ...] = DRAWN,
        num_seeds: int = 5,
        stages: TrialStages | None = None,
        run_jobs: Callable[..., Any] = run_inline,
    ) -> Trust:
        stages = stages or self.make_stages()
        confirmer = Confirmer("mine", stages, num_seeds, controls, run_jobs, self.watcher)
        return confirmer.run(bests or (make_best(),))

    def make_stages(self, **options: Any) -> TrialStages:
        return make_graded_stages(Store(str(self.folder)), **options)


def make_best(mask: Mask | None = None, milestone: float = 0.5, **settings: Any) -> BestMask:
    mask = mask or make_good_mask()
    return BestMask((make_row(mask, milestone),), make_spec(**settings), mask)


def find_arms(mask: ConfirmedMask) -> dict[str, Arm]:
    return {arm.name: arm for arm in mask.arms}


@pytest.fixture
def confirming(tmp_path: Path) -> Confirming:
    return Confirming(tmp_path)


def count(stages: TrialStages, stage: str) -> int:
    return [request.stage for request in stages.executor.requests].count(stage)  # type: ignore[attr-defined]


def test_good_mask_is_better_than_what_was_drawn(confirming: Confirming) -> None:
    trust = confirming.run()
    confirmation = trust.confirmation
    assert (confirmation.looks, confirmation.examples) == ((3, 4, 5), 400)
    assert confirmation.confidence == pytest.approx(1 - 0.05 / 3)
    (mask,) = confirmation.masks
    arms = find_arms(mask)
    assert list(arms) == ["best", "dense", "random", "inverted"]
    assert arms["best"].mean == pytest.approx(0.9, abs=0.01)
    assert arms["inverted"].mean == pytest.approx(0.6, abs=0.01)
    random, inverted = arms["random"].difference, arms["inverted"].difference
    assert inverted is not None
    assert inverted.estimate == pytest.approx(0.3, abs=0.01)
    assert inverted.is_settled
    assert random is not None
    assert 0.05 < random.estimate < 0.25
    for name in ("random", "inverted"):
        assert (arms[name].heads, arms[name].neurons) == (4, 20)


def test_seeds_are_not_spent_on_what_is_settled(confirming: Confirming) -> None:
    stages = confirming.make_stages(noise=0.0)
    (mask,) = confirming.run(controls=(Control.INVERTED,), stages=stages).confirmation.masks
    assert mask.seeds == (1, 2, 3)
    assert count(stages, "retrain") == 2 * 3
    assert [(t.num_done, t.most) for t in confirming.watcher.trainings][-1] == (9, 9 + 3 * 2)


def test_second_run_trains_nothing_and_finds_the_same(confirming: Confirming) -> None:
    first = confirming.run()
    again = confirming.make_stages()
    assert confirming.run(stages=again).confirmation == first.confirmation
    assert again.executor.requests == []  # type: ignore[attr-defined]


def test_killed_run_goes_on_where_it_was(confirming: Confirming) -> None:
    def die(jobs: Any) -> Any:
        yield from run_inline(jobs)[:4]
        if jobs:
            raise KeyboardInterrupt

    killed = confirming.make_stages()
    with pytest.raises(KeyboardInterrupt):
        confirming.run(stages=killed, run_jobs=die)
    again = confirming.make_stages()
    whole = confirming.run(stages=again)
    fresh = Confirming(confirming.folder / "fresh").run()
    assert whole.confirmation == fresh.confirmation
    num_before, num_after = (count(stages, "retrain") for stages in (killed, again))
    num_needed = sum(
        len(arm.metrics) for arm in whole.confirmation.masks[0].arms if arm.name != "dense"
    )
    assert num_before > 0
    assert num_before + num_after == num_needed


def test_control_trials_run_with_the_study_seed_and_once(confirming: Confirming) -> None:
    """Two best masks of trials that differ in λ alone have the same control trial."""
    one = make_best(milestone=0.3, pruning=make_pruning(0.3))
    two = make_best(make_good_mask(good=False), pruning=make_pruning(0.4))
    stages = confirming.make_stages()
    trust = confirming.run(one, two, controls=(Control.LAMBDA_0,), stages=stages)
    assert "Finding masks of control trials: 1" in confirming.watcher.phases
    requests = stages.executor.requests  # type: ignore[attr-defined]
    searched = [r for r in requests if r.settings.get("split") == "search"]
    assert len(searched) == 2  # level 0 and level 1 of the one control trial
    seeds = {r.settings["seed"] for r in requests if r.stage == "dense"}
    assert seeds == {0, *trust.confirmation.masks[0].seeds}
    control = replace(stages, spec=make_spec(pruning=make_pruning(0.0)))
    mask = list(run_trial(control))[-1].mask
    keys = {r.settings["mask"] for r in requests if r.settings.get("split") == "report"}
    assert mask.pack() in keys
    assert len(trust.confirmation.masks) == 2


def test_control_that_finds_the_best_mask_costs_nothing(confirming: Confirming) -> None:
    stages = confirming.make_stages()
    found = [result.mask for result in run_trial(stages)][-1]
    first_cost = len(stages.executor.requests)  # type: ignore[attr-defined]
    best = make_best(found, pruning=make_pruning(0.0))
    trust = confirming.run(best, controls=(Control.LAMBDA_0,), stages=stages)
    arm = find_arms(trust.confirmation.masks[0])["lambda_0"]
    assert (arm.note, arm.metrics, arm.difference) == (SAME_MASK, (), None)
    assert not [phase for phase in confirming.watcher.phases if "control trials" in phase]
    # With no control to settle, the best mask and the dense model get all seeds.
    assert len(trust.confirmation.masks[0].seeds) == 5
    assert len(stages.executor.requests) > first_cost  # type: ignore[attr-defined]


def test_changed_trial_that_happens_to_find_the_best_mask(confirming: Confirming) -> None:
    stages = confirming.make_stages()
    control = replace(stages, spec=make_spec(pruning=make_pruning(0.0)))
    found = list(run_trial(control))[-1].mask
    best = make_best(found, pruning=make_pruning(0.5))
    trust = confirming.run(best, controls=(Control.LAMBDA_0,), stages=stages)
    assert find_arms(trust.confirmation.masks[0])["lambda_0"].note == SAME_MASK


def test_what_cannot_be_trained_says_why(confirming: Confirming) -> None:
    dense_ish = make_mask(np.ones((2, 4)), np.tile(np.arange(20) < 15, (2, 1)))
    stages = confirming.make_stages()
    bare = replace(stages.context.checkpoint, has_mlm_head=False)
    stages = replace(stages, context=replace(stages.context, checkpoint=bare))
    pruning = make_pruning(0.0, importance={"pretrained_objective": "mlm"})
    best = make_best(dense_ish, pruning=pruning)
    controls = (Control.INVERTED, Control.LAMBDA_1)
    trust = confirming.run(best, controls=controls, stages=stages)
    arms = find_arms(trust.confirmation.masks[0])
    assert arms["inverted"].note == "does not fit: only 10 neurons are removed and 30 are kept"
    assert "MLM" in arms["lambda_1"].note
    assert (trust.stability, trust.forgetting) == (None, None)
    assert "MLM" in (trust.reason or "")


def test_joint_allocation_says_that_sizes_differ(confirming: Confirming) -> None:
    pruning = make_pruning(0.5, selection={"allocation": "joint_parameters"})
    best = make_best(make_good_mask(num_heads=7), pruning=pruning)
    trust = confirming.run(best, controls=(Control.LAMBDA_0,))
    arm = find_arms(trust.confirmation.masks[0])["lambda_0"]
    assert arm.note.startswith("keeps ")
    assert f"{arm.heads} heads where the best has 7" in arm.note
    assert arm.metrics


def test_sizes_are_compared() -> None:
    one, other = make_mask([[1, 1]], [[1, 0]]), make_mask([[0, 1]], [[1, 1]])
    assert compare_sizes(one, one) == ""
    assert compare_sizes(one, other) == (
        "keeps 1 heads where the best has 2 and 2 neurons where the best has 1, at the same "
        "sparsity in all"
    )


def test_winners_curse_is_shown(confirming: Confirming) -> None:
    (mask,) = confirming.run().confirmation.masks
    assert (mask.search_metric, mask.report_metric) == (0.93, 0.91)
    assert mask.best.mean is not None
    assert mask.best.mean < mask.report_metric


def test_scores_of_the_seeds_are_compared(confirming: Confirming) -> None:
    one = make_best(milestone=0.3)
    two = make_best(make_good_mask(good=False), milestone=0.5)
    trust = confirming.run(one, two, controls=(Control.RANDOM,))
    assert trust.reason is None
    assert trust.stability is not None
    assert trust.forgetting is not None
    spent = max((mask.seeds for mask in trust.confirmation.masks), key=len)
    assert trust.stability.seeds == trust.forgetting.seeds == spent
    assert [masks.milestone for masks in trust.stability.masks] == [0.3, 0.5]
    assert trust.forgetting.domain == "movies"


def test_training_that_diverges_is_told_and_ends_its_arm(confirming: Confirming) -> None:
    inverted = make_good_mask(good=False)[UnitKind.NEURON]

    class Diverging:
        def __init__(self, stages: TrialStages) -> None:
            self.executor = stages.executor

        def ensure(self, request: Any) -> bool:
            packed = request.settings.get("mask")
            if request.stage == "retrain" and (Mask.unpack(packed)["neuron"] == inverted).all():
                raise DivergedTrialError("loss: nan is not finite")
            return self.executor.ensure(request)

    stages = confirming.make_stages()
    trust = confirming.run(stages=replace(stages, executor=Diverging(stages)))
    arm = find_arms(trust.confirmation.masks[0])["inverted"]
    assert arm.note.startswith("diverged with seed ")
    assert (arm.metrics, arm.difference) == ((), None)
    assert [t for t in confirming.watcher.trainings if t.metric is None]
    assert find_arms(trust.confirmation.masks[0])["random"].difference is not None


def test_control_trial_that_diverges(confirming: Confirming) -> None:
    class Diverging:
        def __init__(self, stages: TrialStages) -> None:
            self.executor = stages.executor

        def ensure(self, request: Any) -> bool:
            if request.stage == "score" and request.settings["criterion"] == "magnitude":
                raise DivergedTrialError("a weight is not finite")
            return self.executor.ensure(request)

    stages = confirming.make_stages()
    controls = (Control.RANDOM, Control.MAGNITUDE)
    trust = confirming.run(controls=controls, stages=replace(stages, executor=Diverging(stages)))
    arm = find_arms(trust.confirmation.masks[0])["magnitude"]
    assert arm.note == "its trial diverged: a weight is not finite"


def test_progress_says_what_is_left_at_most(confirming: Confirming) -> None:
    confirming.run(num_seeds=3)
    trainings = confirming.watcher.trainings
    assert [training.num_done for training in trainings] == list(range(1, 13))
    assert {training.most for training in trainings} == {12}
    assert {training.seed for training in trainings} == {1, 2, 3}
    assert [training.seconds_left is None for training in trainings] == [True] * 3 + [False] * 9
    assert trainings[-1].seconds_left == 0.0
    again = Confirming(confirming.folder)
    again.run(num_seeds=3)
    assert {training.seconds_left for training in again.watcher.trainings} == {None}
