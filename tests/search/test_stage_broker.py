"""Single flight: however many ask for a stage, it is computed once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any
from unittest.mock import Mock

import pytest
import ray

from distprune.errors import ConfigError, DivergedTrialError, StageError
from distprune.search import stage_broker
from distprune.search.cluster import Capacity, name_address_resource
from distprune.search.spec import ResourcesSpec
from distprune.search.stage_broker import (
    TASK_RETRIES,
    RayExecutor,
    StageBroker,
    ask_precision,
    make_stage_task,
    start_broker,
)
from distprune.search.stage_queue import Urgency
from distprune.search.termination import PreemptedError
from distprune.store.store import Store
from distprune.tasks.spec import TaskSpec
from distprune.trial.request import StageRequest
from distprune.trial.spec import Precision
from tests.tiny_study import MODEL_MAX_LENGTH

NUM_ASKING = 5
SOON, LATE = Urgency(1, 0), Urgency(5, 0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


class CountingBroker(StageBroker.__ray_metadata__.modified_class):  # type: ignore[misc]
    """The broker outside an actor; it counts the stages that it would start on Ray."""

    def __init__(self, store: Store, slots: int = 2) -> None:
        self.slots, self.nodes = slots, "ab"
        super().__init__(store, ResourcesSpec())
        self.started: list[str] = []
        self.seeds: list[Any] = []
        self.error: Exception | None = None
        self.failures: list[Exception] = []
        self.num_running = self.most_running = 0

    def _measure_capacity(self) -> Capacity:
        return Capacity(self.slots, shared_cpus=1, node_gpus=0, nodes=frozenset(self.nodes))

    async def _submit(self, request: StageRequest) -> bool:
        self.started.append(request.stage)
        self.seeds.append(request.settings["seed"])
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        await asyncio.sleep(0.01)
        self.num_running -= 1
        if self.failures:
            raise self.failures.pop(0)
        if self.error is not None:
            raise self.error
        self._store.commit(request.key, lambda folder: None, request.identity)
        return True


def make_request(seed: int = 0) -> StageRequest:
    return StageRequest("score", {"seed": seed})


async def ask(broker: CountingBroker, *requests: StageRequest) -> list[Any]:
    asked = [broker.ensure(request, SOON) for request in requests for _ in range(NUM_ASKING)]
    return await asyncio.gather(*asked, return_exceptions=True)


def test_stage_that_many_ask_for_is_started_once(store: Store) -> None:
    broker = CountingBroker(store)
    answers = asyncio.run(ask(broker, make_request(0), make_request(1)))
    assert answers == [True, *[False] * (NUM_ASKING - 1)] * 2
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
    assert asyncio.run(ask(broker, make_request())) == [True, *[False] * (NUM_ASKING - 1)]
    assert broker.started == ["score", "score"]


def test_stage_that_diverged_is_not_tried_again(store: Store) -> None:
    """On Ray, a stage's error comes wrapped, with the error itself as its cause."""
    broker = CountingBroker(store)
    broker.error = RuntimeError("wrapped")
    broker.error.cause = DivergedTrialError("a weight is not finite")  # type: ignore[attr-defined]
    asyncio.run(ask(broker, make_request()))
    broker.error = None
    (answer, *_) = asyncio.run(ask(broker, make_request()))
    assert str(answer) == "a weight is not finite"
    assert broker.started == ["score"]


def test_no_more_stages_run_than_there_is_room_for(store: Store) -> None:
    broker = CountingBroker(store)
    asyncio.run(ask(broker, *(make_request(seed) for seed in range(7))))
    assert broker.most_running == 2
    assert len(broker.started) == 7


def test_stage_starts_in_the_turn_of_its_most_urgent_trial(store: Store) -> None:
    broker = CountingBroker(store, slots=1)

    async def ask_all() -> list[bool]:
        waiting = [broker.ensure(make_request(seed), LATE) for seed in range(4)]
        return await asyncio.gather(*waiting, broker.ensure(make_request(3), SOON))

    asyncio.run(ask_all())
    assert broker.seeds == [0, 3, 1, 2]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the broker look at the cluster often, and start lost stages again at once."""
    monkeypatch.setattr(stage_broker, "LOOK_S", 0.02)
    monkeypatch.setattr(stage_broker, "PAUSES_S", (0.0,))


def crash() -> Exception:
    return ray.exceptions.WorkerCrashedError()


def lose_node() -> Exception:
    return ray.exceptions.NodeDiedError("the node is gone")


@pytest.mark.usefixtures("hurried")
class TestLosses:
    def test_what_is_lost_with_nodes_starts_again_however_often(self, store: Store) -> None:
        """Preempted nodes are not the fault of a stage."""
        broker = CountingBroker(store)
        broker.failures = [lose_node(), PreemptedError("SIGTERM")] * 5
        broker.failures += [crash() for _ in range(TASK_RETRIES)]
        answers = asyncio.run(ask(broker, make_request()))
        assert answers == [True, *[False] * (NUM_ASKING - 1)]
        assert len(broker.started) == 1 + 2 * 5 + TASK_RETRIES

    @pytest.mark.parametrize("num_crashes", [TASK_RETRIES, TASK_RETRIES + 1])
    def test_stage_that_crashes_its_workers_fails_for_all(
        self, num_crashes: int, store: Store
    ) -> None:
        broker = CountingBroker(store)
        broker.failures = [crash() for _ in range(num_crashes)]
        answers = asyncio.run(ask(broker, make_request()))
        if num_crashes <= TASK_RETRIES:
            assert answers == [True, *[False] * (NUM_ASKING - 1)]
            return
        assert {type(answer) for answer in answers} == {StageError}
        assert "its worker died 4 times (WorkerCrashedError)" in str(answers[0])
        assert "\n" not in str(answers[0])

    def test_stage_without_memory_is_told_so(self, store: Store) -> None:
        broker = CountingBroker(store)
        broker.failures = [ray.exceptions.OutOfMemoryError("killed") for _ in range(9)]
        (answer, *_) = asyncio.run(ask(broker, make_request()))
        assert "ran out of memory 4 times" in str(answer)
        assert "resources.stage_memory_mib" in str(answer)

    def test_crashes_about_when_a_node_was_lost_do_not_count(self, store: Store) -> None:
        """The processes of a node that is shut down die one by one before it is gone."""
        broker = CountingBroker(store)
        broker.failures = [crash() for _ in range(3 * TASK_RETRIES)]

        async def lose_a_node() -> list[Any]:
            asking = asyncio.ensure_future(ask(broker, make_request()))
            while not broker.started:
                await asyncio.sleep(0.0)
            broker.nodes = "b"
            return await asking

        assert asyncio.run(lose_a_node()) == [True, *[False] * (NUM_ASKING - 1)]

    def test_stages_that_wait_start_when_the_cluster_grows(self, store: Store) -> None:
        """Also where no stage ends meanwhile."""
        broker = CountingBroker(store, slots=1)
        running = asyncio.Event()

        async def submit(request: StageRequest) -> bool:
            broker.num_running += 1
            if broker.num_running == 3:
                running.set()
            await running.wait()
            return True

        async def grow() -> list[Any]:
            broker._submit = submit
            asking = asyncio.ensure_future(ask(broker, *(make_request(seed) for seed in range(3))))
            await asyncio.sleep(0.1)
            assert broker.num_running == 1
            broker.slots = 3
            return await asyncio.wait_for(asking, 10)

        assert asyncio.run(grow()).count(True) == 3

    def test_cluster_that_does_not_answer_for_a_while_is_taken_as_it_was(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broker = CountingBroker(store)
        broker.failures = [crash()]
        monkeypatch.setattr(
            broker, "_measure_capacity", Mock(side_effect=RuntimeError("no answer"))
        )
        assert asyncio.run(ask(broker, make_request()))[0] is True


def test_storage_that_is_slow_to_answer_holds_up_nobody(store: Store) -> None:
    broker = CountingBroker(store, slots=4)
    all_ask = Barrier(4)

    def has(key: str) -> bool:
        all_ask.wait(30)  # raises unless all four are asked at a time
        return False

    broker._store = Mock(wraps=store, has=has)
    answers = asyncio.run(ask(broker, *(make_request(seed) for seed in range(4))))
    assert answers.count(True) == 4


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

    def test_broker_asks_for_something_of_the_drivers_node(self, store: Store) -> None:
        """Who asks for nothing is given to any node."""
        broker = start_broker(store, ResourcesSpec())
        context = ray.get_runtime_context
        granted = ray.get(broker.__ray_call__.remote(lambda _: context().get_assigned_resources()))
        assert granted == {name_address_resource(context().get_node_id()): 0.001}

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

    def test_stage_whose_worker_dies_runs_again(self, tmp_path: Path) -> None:
        store = FragileStore(str(tmp_path / "store"), deaths=2)
        executor = RayExecutor(start_broker(store, ResourcesSpec()), store)
        executor.ensure(make_request())
        assert store.count_attempts() == 3
        assert [*store.keys()] == [make_request().key]

    def test_stage_that_kills_each_worker_fails_for_all(self, tmp_path: Path) -> None:
        store = FragileStore(str(tmp_path / "store"), deaths=100)
        executor = RayExecutor(start_broker(store, ResourcesSpec()), store)
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(executor.ensure, make_request()) for _ in range(3)]
            errors = [task.exception() for task in waiting]
        assert all(isinstance(error, StageError) for error in errors), errors
        assert all("WorkerCrashed" in str(error) for error in errors), errors
        assert store.count_attempts() == 1 + TASK_RETRIES

    def test_stage_whose_worker_is_told_to_end_runs_elsewhere(self, tmp_path: Path) -> None:
        """SIGTERM before the stage was computed; that costs it none of its tries."""
        store = TerminatedStore(str(tmp_path / "store"), terminations=2)
        executor = RayExecutor(start_broker(store, ResourcesSpec()), store)
        executor.ensure(make_request())
        assert store.count_attempts() == 3
        assert [*store.keys()] == [make_request().key]
        assert not list((tmp_path / "store" / "leases").glob("*.json"))

    def test_stage_gets_the_memory_that_it_asks_for(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "store"))
        resources = ResourcesSpec(stage_memory_mib=10, trial_memory_mib=64)
        seen = MemoryStore(store.root)
        executor = RayExecutor(start_broker(seen, resources), seen)
        executor.ensure(make_request())
        assert (tmp_path / "memory").read_text() == str(10 << 20)

    def test_error_of_a_stage_is_told_with_its_traceback(self, tmp_path: Path) -> None:
        store = FailingStore(str(tmp_path / "store"))
        executor = RayExecutor(start_broker(store, ResourcesSpec()), store)
        with pytest.raises(ray.exceptions.RayTaskError, match="the GPU is on fire") as caught:
            executor.ensure(make_request())
        assert "in get_or_commit" in str(caught.value)

    def test_nobody_hangs_when_the_broker_dies(self, tmp_path: Path) -> None:
        store = SlowStore(str(tmp_path / "store"))
        broker = start_broker(store, ResourcesSpec())
        executor = RayExecutor(broker, store)
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(executor.ensure, make_request()) for _ in range(2)]
            while not store.count_attempts():
                time.sleep(0.05)
            ray.kill(broker, no_restart=False)
            answers = [task.result(timeout=60) for task in waiting]
        assert set(answers) <= {True, False}
        assert [*store.keys()] == [make_request().key]


class EventfulStore(Store):
    """A store in which something happens whenever a stage is to be computed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.root,)

    @property
    def _attempts(self) -> Path:
        return Path(self.root).with_name("attempts")

    def count_attempts(self) -> int:
        """Return how often a worker has begun."""
        return len(self._attempts.read_text()) if self._attempts.exists() else 0

    def get_or_commit(self, key: str, write: Any, record: Any) -> Any:
        with self._attempts.open("a") as file:
            file.write(".")
        with self.lease(key):
            self.happen()
            return self.find(key) or self.commit(key, lambda folder: None, record)

    def happen(self) -> None:
        raise NotImplementedError


class FragileStore(EventfulStore):
    """Kills the first few workers that compute a stage."""

    def __init__(self, root: str, deaths: int) -> None:
        super().__init__(root)
        self._deaths = deaths

    def __reduce__(self) -> tuple[Any, ...]:
        return FragileStore, (self.root, self._deaths)

    def happen(self) -> None:
        if self.count_attempts() <= self._deaths:
            os.kill(os.getpid(), signal.SIGKILL)


class TerminatedStore(EventfulStore):
    """Tells the first few workers that compute a stage to end at once."""

    def __init__(self, root: str, terminations: int) -> None:
        super().__init__(root)
        self._terminations = terminations

    def __reduce__(self) -> tuple[Any, ...]:
        return TerminatedStore, (self.root, self._terminations)

    def happen(self) -> None:
        if self.count_attempts() <= self._terminations:
            for _ in range(2):  # the second one ends the grace
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.05)


class MemoryStore(EventfulStore):
    """Writes down the memory that Ray granted to a stage."""

    def happen(self) -> None:
        granted = ray.get_runtime_context().get_assigned_resources()["memory"]
        Path(self.root).with_name("memory").write_text(str(int(granted)))


class FailingStore(EventfulStore):
    def happen(self) -> None:
        raise RuntimeError("the GPU is on fire")


class SlowStore(EventfulStore):
    def happen(self) -> None:
        time.sleep(2.0)


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
