"""Walks over made-up results ask for what trials ask for."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from distprune.search.made_up_search import draw_search
from distprune.search.planned_trials import (
    AskedStages,
    MadeUpResults,
    ask_study,
    draw_target,
)
from distprune.search.study_file import Study, check_study
from distprune.store.store import Store
from distprune.trial.context import TrialContext
from distprune.trial.resolve import resolve_context
from distprune.trial.runner import run_trial
from distprune.trial.stages import TrialStages
from tests.cli.tiny_search import tiny_values
from tests.trial.studies import CannedExecutor

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory, body_checkpoint: Path, word_task: Path
) -> Study:
    """The tiny search on a checkpoint without a head, so that there is a probe."""
    return check_study(tiny_values(tmp_path_factory.mktemp("studies"), body_checkpoint, word_task))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def context(study: Study, store: Store) -> TrialContext:
    return resolve_context(study.base, store, study.rewinding_points, uses_gpu=False)


@pytest.fixture(scope="module")
def asked(
    study: Study, context: TrialContext, tmp_path_factory: pytest.TempPathFactory
) -> AskedStages:
    scratch = tmp_path_factory.mktemp("scratch")
    rounds = [draw_search(study, 1, 2, scratch, number) for number in range(2)]
    return ask_study(study, context, rounds, scratch)


def test_driver_asks_for_what_all_trials_need(asked: AskedStages) -> None:
    assert [request.stage for request in asked.shared] == ["dense", "evaluate", "probe"]


def test_each_trial_has_its_levels_and_each_stage_once(asked: AskedStages) -> None:
    assert [len(trials) for trials in asked.rounds] == [4, 4]
    for trial in chain.from_iterable(asked.rounds):
        assert len(trial.levels) == 1 + len(trial.spec.pruning.sparsities)
        assert all(requests[-1].stage == "evaluate" for requests in trial.levels)
        keys = [request.key for requests in trial.levels for request in requests]
        assert len(keys) == len(set(keys))


def test_walk_asks_for_what_a_trial_asks_for(
    asked: AskedStages, context: TrialContext, store: Store
) -> None:
    """The canned results are other ones, so keys differ; stages and their order do not."""
    for number, trial in enumerate(chain.from_iterable(asked.rounds)):
        executor = CannedExecutor(Store(f"{store.root}-{number}"))
        list(run_trial(TrialStages(trial.spec, context, executor.store, executor)))
        walked = [request.stage for requests in trial.levels for request in requests]
        assert walked == [stage for stage in executor.computed if stage != "snapshot"]


def test_equal_settings_share_all_stages(
    study: Study, context: TrialContext, tmp_path: Path
) -> None:
    def walk(**values: Any) -> list[str]:
        made_up = MadeUpResults(context, tmp_path)
        list(run_trial(made_up.bind(study.make_trial(values))))
        return [request.key for request in made_up.take()]

    one, other = (walk(**{"pruning.mixing.coefficient": value}) for value in (0.0, 1.0))
    assert walk(**{"pruning.mixing.coefficient": 0.0}) == one
    assert set(one) & set(other) == {one[0], one[1]}  # dense, and its evaluation


def test_samples_have_one_of_each_kind(asked: AskedStages) -> None:
    kinds = {str(kind) for kind in asked.samples}
    assert kinds == {"dense", "evaluate", "probe", "score (task, example)", "retrain"}


def test_target_is_what_the_last_level_keeps(study: Study, context: TrialContext) -> None:
    target = draw_target(study, context)
    assert target.num_kept("head") == 3  # 8 - ceil(0.6 x 8)
    assert target.num_kept("neuron") == 16  # 40 - 24
