"""A store that loses what a trial has put there: the trial makes it again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distprune.errors import LostInputError
from distprune.store.paths import PATHS
from distprune.trial.request import StageRequest
from distprune.trial.runner import ATTEMPTS, run_trial
from distprune.trial.stages import TrialStages
from tests.trial.canned import computed
from tests.trial.studies import TinyStudy, forget_models, summarise


def lose(stages: TrialStages, key: str) -> None:
    shutil.rmtree(Path(stages.store.root) / PATHS.entry(key))
    forget_models()


def lose_task(stages: TrialStages) -> list[str]:
    lose(stages, stages.context.prepared)
    return ["prepare"]


def lose_dense(stages: TrialStages) -> list[str]:
    lose(stages, stages.dense().weights.key)
    return ["dense"]


def lose_both(stages: TrialStages) -> list[str]:
    return lose_dense(stages) + lose_task(stages)


@pytest.mark.parametrize("lose_some", [lose_task, lose_dense, lose_both])
def test_what_is_lost_is_made_again(
    study: TinyStudy, tmp_path: Path, lose_some: Callable[[TrialStages], list[str]]
) -> None:
    expected = [summarise(level) for level in study.at(tmp_path / "whole").run()]
    stages = study.at(tmp_path / "leaking").make_stages()
    levels = run_trial(stages)
    found = [summarise(next(levels))]
    lost = lose_some(stages)
    before = len(computed(stages))
    found += [summarise(level) for level in levels]
    assert found == expected
    assert set(lost) <= set(computed(stages)[before:])


@dataclass
class LosingExecutor:
    """Says of every stage that its input is lost."""

    asked: list[str] = field(default_factory=list)

    def ensure(self, request: StageRequest) -> bool:
        self.asked.append(request.stage)
        raise LostInputError(f"stage {request.stage}: its input is not in the store any more")


def test_store_that_keeps_nothing_is_given_up(study: TinyStudy) -> None:
    spec = study.make_spec()
    executor = LosingExecutor()
    context = study.resolve(spec)
    stages = TrialStages(spec, context, study.store, executor)
    with pytest.raises(LostInputError, match="not in the store any more"):
        list(run_trial(stages))
    assert "dense" in executor.asked
    assert len(executor.asked) <= 2 * ATTEMPTS
