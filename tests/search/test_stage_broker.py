"""Single flight: however many ask for a stage, it is computed once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from distprune.errors import ConfigError
from distprune.search.spec import ResourcesSpec
from distprune.search.stage_broker import (
    RayExecutor,
    StageBroker,
    ask_precision,
    make_stage_task,
    start_broker,
)
from distprune.store.store import Store
from distprune.tasks.spec import TaskSpec
from distprune.trial.request import StageRequest
from distprune.trial.spec import Precision
from tests.tiny_study import MODEL_MAX_LENGTH

NUM_ASKING = 5


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


class CountingBroker(StageBroker.__ray_metadata__.modified_class):  # type: ignore[misc]
    """The broker outside an actor; it counts the stages that it would start on Ray."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, ResourcesSpec(), 1)
        self.started: list[str] = []
        self.error: Exception | None = None

    async def _run(self, request: StageRequest) -> None:
        self.started.append(request.stage)
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        self._store.commit(request.key, lambda folder: None, request.identity)


def make_request(seed: int = 0) -> StageRequest:
    return StageRequest("score", {"seed": seed})


async def ask(broker: CountingBroker, *requests: StageRequest) -> list[Any]:
    asked = [broker.ensure(request) for request in requests for _ in range(NUM_ASKING)]
    return await asyncio.gather(*asked, return_exceptions=True)


def test_stage_that_many_ask_for_is_started_once(store: Store) -> None:
    broker = CountingBroker(store)
    answers = asyncio.run(ask(broker, make_request(0), make_request(1)))
    assert answers == [None] * 2 * NUM_ASKING
    assert broker.started == ["score", "score"]


def test_stored_stage_is_not_started(store: Store) -> None:
    broker = CountingBroker(store)
    for _ in range(2):
        asyncio.run(ask(broker, make_request()))
    assert broker.started == ["score"]


def test_error_reaches_all_who_ask_and_is_forgotten(store: Store) -> None:
    broker = CountingBroker(store)
    broker.error = ValueError("a stage failed")
    assert asyncio.run(ask(broker, make_request())) == [broker.error] * NUM_ASKING
    broker.error = None
    assert asyncio.run(ask(broker, make_request())) == [None] * NUM_ASKING
    assert broker.started == ["score", "score"]


def make_prepare_request(checkpoint: Path, task: Path, max_length: int) -> StageRequest:
    spec = TaskSpec(dataset=str(task), max_length=max_length).model_dump(mode="json")
    dataset = spec.pop("dataset")
    return StageRequest(
        "prepare",
        {"task": spec, "vocabulary_size": None},
        places={"checkpoint": str(checkpoint), "dataset": dataset},
        is_shared=True,
    )


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.filterwarnings("ignore")
class TestOnRay:
    """One broker and one worker for all of it, as starting them takes longest."""

    def test_stage_is_stored_and_its_error_is_ours(
        self, store: Store, mlm_checkpoint: Path, word_task: Path
    ) -> None:
        executor = RayExecutor(start_broker(store, ResourcesSpec()), store)
        good = make_prepare_request(mlm_checkpoint, word_task, MODEL_MAX_LENGTH)
        executor.ensure(good)
        executor.ensure(good)
        assert store.find(good.key) is not None
        too_long = make_prepare_request(mlm_checkpoint, word_task, 2 * MODEL_MAX_LENGTH)
        with pytest.raises(ConfigError) as caught:
            executor.ensure(too_long)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"max_length: {2 * MODEL_MAX_LENGTH} tokens")


@pytest.mark.parametrize(
    ("gpus", "node_gpus", "max_calls"), [(0.0, 8, 0), (1.0, 1, 0), (0.25, 1, 0), (0.5, 2, 1)]
)
def test_a_process_that_may_get_another_card_is_not_reused(
    gpus: float, node_gpus: int, max_calls: int
) -> None:
    options = make_stage_task(gpus, node_gpus)._default_options
    assert (options["num_gpus"], options["max_calls"]) == (gpus, max_calls)


def test_a_named_precision_asks_nobody() -> None:
    assert ask_precision(Precision.FLOAT32, ResourcesSpec()) == "float32"
