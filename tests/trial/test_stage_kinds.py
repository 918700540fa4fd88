"""What decides the time of a stage."""

from __future__ import annotations

from typing import Any

import pytest

from distprune.trial.request import StageRequest
from distprune.trial.stage_kinds import count_examples, count_lengths, find_kind, find_mask
from tests.trial.studies import keep

COUNTS = {"train": 100, "search": 40, "report": 70}
RECIPE = {"steps": None, "epochs": 1.5, "batch_size": 8, "freeze": ["embeddings"]}
SCORE = {"criterion": "fisher", "objective": "task", "estimator": "token", "examples": 64}
LENGTHS = {"train": 9, "search": 4, "report": 6}


def request(stage: str, inputs: dict[str, str] | None = None, **settings: Any) -> StageRequest:
    return StageRequest(stage, settings, inputs or {})


@pytest.mark.parametrize(
    ("asked", "kind", "num_examples"),
    [
        (request("dense", recipe=RECIPE), "dense", 150),
        (request("probe", recipe=RECIPE | {"steps": 5}), "probe", 40),
        (request("retrain", recipe=RECIPE), "retrain (embeddings frozen)", 150),
        (
            request("retrain", {"teacher": "t"}, recipe=RECIPE | {"freeze": []}),
            "retrain (distilled)",
            150,
        ),
        (request("evaluate", split="report"), "evaluate", 70),
        (request("score", **SCORE), "score (task, token)", 64),
        (request("score", **SCORE | {"examples": 512}), "score (task, token)", 100),
        (
            request("score", **SCORE | {"objective": "mlm", "mlm_draws": 3}),
            "score (mlm, token)",
            192,
        ),
        (request("score", criterion="magnitude", objective="task"), "score (magnitude)", 0),
        (request("score", criterion="random", objective="task", seed=1), "score (random)", 0),
    ],
)
def test_kind_and_examples(asked: StageRequest, kind: str, num_examples: float) -> None:
    assert str(find_kind(asked)) == kind
    assert count_examples(asked, COUNTS) == num_examples


@pytest.mark.parametrize(
    ("asked", "num_lengths"),
    [
        (request("retrain", recipe=RECIPE), 9),
        (request("probe", recipe=RECIPE | {"steps": 5}), 5),
        (request("evaluate", split="report"), 6),
        (request("score", **SCORE, batch_size=8), 8),
        (request("score", **SCORE | {"examples": 90}, batch_size=8), 9),
        (request("score", criterion="magnitude", objective="task"), 0),
    ],
)
def test_lengths_are_those_of_the_split_and_at_most_one_a_batch(
    asked: StageRequest, num_lengths: int
) -> None:
    assert count_lengths(asked, LENGTHS, count_examples(asked, COUNTS)) == num_lengths


def test_mask_is_that_of_the_request() -> None:
    mask = keep(3, 11)
    assert find_mask(request("evaluate", mask=mask.pack())) == mask
    assert find_mask(request("dense")) is None
