"""Mask transfer: what is trained for the table, and that every number lands in its cell."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distprune.core.controls import draw_random_mask
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import ConfigError, DivergedTrialError, MaskError
from distprune.search import transfer as module
from distprune.search.spec import ResourcesSpec
from distprune.search.transfer import (
    Job,
    NamedMask,
    Transfer,
    TransferSurroundings,
    list_jobs,
    run_transfer,
)
from distprune.store.store import Store
from distprune.tasks.spec import TaskSpec
from distprune.trial.executor import InProcessExecutor
from distprune.trial.request import StageRequest
from distprune.trial.spec import Precision, TrialSpec
from distprune.trial.stages import METRICS_FILE
from tests.tiny_study import SHAPE
from tests.trial.studies import QUICK, CannedExecutor, CountingExecutor, keep

pytestmark = pytest.mark.filterwarnings("ignore")

FIRST, SECOND = keep(3, 11, seed=1), keep(3, 11, seed=2)
SMALLER = keep(2, 5)


@dataclass
class Recorder:
    """Hears what a transfer says."""

    phases: list[str] = field(default_factory=list)
    begun: list[tuple[str, int]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def on_phase(self, text: str) -> None:
        self.phases.append(text)

    def on_begin(self, text: str, total: int) -> None:
        self.begun.append((text, total))

    def on_done(self, text: str) -> None:
        self.done.append(text)


@dataclass(frozen=True)
class SequentialSession:
    """A session without Ray that runs the jobs backwards: their order must not matter."""

    executor: Any

    def resolve_precision(self, precision: Precision) -> str:
        return "float32"

    def run(self, jobs: Sequence[Callable[[], Any]]) -> Iterator[tuple[int, Any]]:
        for number in reversed(range(len(jobs))):
            yield number, jobs[number]()


class HashingExecutor(CannedExecutor):
    """Prepares tasks; makes up everything else, metrics by what is evaluated."""

    def ensure(self, request: StageRequest) -> bool:
        if request.stage == "prepare":
            return InProcessExecutor(self.store).ensure(request)
        return super().ensure(request)

    def _writer(self, request: StageRequest) -> Callable[[Path], None]:
        if request.stage != "evaluate":
            return super()._writer(request)
        metric = make_up_metric(request.inputs["weights"])
        return lambda folder: (folder / METRICS_FILE).write_text(json.dumps({"metric": metric}))


def make_up_metric(weights: str) -> float:
    return int(hashlib.sha256(weights.encode()).hexdigest()[:6], 16) / 16**6


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let transfers run without Ray on made-up results; their executors are listed."""
    executors: list[Any] = []

    @contextmanager
    def open_session(store: Store, *settings: Any) -> Iterator[SequentialSession]:
        executors.append(HashingExecutor(store))
        yield SequentialSession(executors[-1])

    monkeypatch.setattr(module, "open_stage_session", open_session)
    return executors


@pytest.fixture
def tasks(word_task: Path, degree_task: Path) -> dict[str, TaskSpec]:
    return {
        "words": TaskSpec(dataset=str(word_task), max_length=16),
        "degrees": TaskSpec(dataset=str(degree_task), max_length=16),
    }


@pytest.fixture
def spec(mlm_checkpoint: Path, tasks: dict[str, TaskSpec]) -> TrialSpec:
    values = {
        "checkpoint": str(mlm_checkpoint),
        "task": tasks["words"],
        "pruning": {"schedule": {"levels": 2}, "importance": {"examples": 32}},
        "fine_tuning": QUICK,
        "precision": "float32",
        "seed": 5,
    }
    return TrialSpec.model_validate(values)


@pytest.fixture
def place(tmp_path: Path) -> TransferSurroundings:
    return TransferSurroundings(str(tmp_path / "store"), ResourcesSpec(cpus_per_stage=1))


def name(mask: Mask, name: str = "first", home: str | None = None) -> NamedMask:
    return NamedMask(name, mask, home, 0.5)


def test_seeds_are_not_those_that_masks_were_found_with(
    spec: TrialSpec, tasks: dict[str, TaskSpec]
) -> None:
    assert Transfer(spec, tasks, (), 3).seeds == (6, 7, 8)


def test_jobs_of_masks_of_one_size(spec: TrialSpec, tasks: dict[str, TaskSpec]) -> None:
    masks = (name(FIRST), name(SECOND, "second"))
    jobs = list(list_jobs(Transfer(spec, tasks, masks, 2), masks))
    kinds = Counter(str(job.place[0]) for job in jobs)
    # tasks x seeds: dense; one random mask, which both share; two masks
    assert kinds == {"dense": 4, "random": 4, "mask": 8}
    assert len({job.place for job in jobs}) == len(jobs)
    assert [job.place[0] for job in jobs[:4]] == ["dense"] * 4


def test_masks_of_other_sizes_have_random_masks_of_their_own(
    spec: TrialSpec, tasks: dict[str, TaskSpec]
) -> None:
    masks = (name(FIRST), name(SMALLER, "smaller"), NamedMask("late", FIRST, None, 1.0))
    jobs = list(list_jobs(Transfer(spec, tasks, masks, 1), masks))
    assert Counter(str(job.place[0]) for job in jobs)["random"] == 2 * 3


def test_every_number_is_in_its_cell(
    spec: TrialSpec,
    tasks: dict[str, TaskSpec],
    place: TransferSurroundings,
    sessions: list[Any],
) -> None:
    masks = (name(FIRST, "first", "words"), name(SMALLER, "smaller"))
    transfer = Transfer(spec, tasks, masks, 2, 0.5)
    observer = Recorder()
    table, used = run_transfer(transfer, place, observer)
    assert used == masks
    assert observer.begun == [("Training on each task", 20)]
    assert len(observer.done) == 20
    assert (table.milestone, table.seeds, table.checkpoint) == (0.5, (6, 7), spec.checkpoint)
    assert [row.home for row in table.rows] == ["words", None]
    assert [(row.heads, row.neurons) for row in table.rows] == [(3, 11), (2, 5)]
    weights = weights_by_identity(sessions[0])
    for column in table.columns:
        for row, mask in zip(table.rows, masks, strict=True):
            cell = table.cell(row.name, column.name)
            for seed, metric, random in zip(table.seeds, cell.metrics, cell.random, strict=True):
                drawn = draw_random_mask(mask.mask, seed)
                is_words = column.name == "words"
                assert metric == weights[is_words, seed, mask.mask.pack()]
                assert random == weights[is_words, seed, drawn.pack()]
        assert column.dense == tuple(
            weights[column.name == "words", seed, None] for seed in table.seeds
        )
    assert table.columns[0].metric == "accuracy"
    assert table.columns[1].metric == "pearson_spearman"


def weights_by_identity(executor: HashingExecutor) -> dict[tuple[bool, int, str | None], float]:
    """Return the metric of all weights by (task has two classes, seed, mask or None)."""
    return {
        (
            request.settings["num_labels"] == 2,
            request.settings["seed"],
            request.settings.get("mask"),
        ): make_up_metric(request.key)
        for request in executor.requests
        if request.stage in ("dense", "retrain")
    }


def test_only_the_report_split_is_looked_at(
    spec: TrialSpec,
    tasks: dict[str, TaskSpec],
    place: TransferSurroundings,
    sessions: list[Any],
) -> None:
    run_transfer(Transfer(spec, tasks, (name(FIRST),), 1), place, Recorder())
    splits = {r.settings["split"] for r in sessions[0].requests if r.stage == "evaluate"}
    assert splits == {"report"}


def test_again_nothing_is_computed(
    spec: TrialSpec,
    tasks: dict[str, TaskSpec],
    place: TransferSurroundings,
    sessions: list[Any],
) -> None:
    transfer = Transfer(spec, tasks, (), 2, 0.5)
    once, _ = run_transfer(transfer, place, Recorder())
    assert run_transfer(transfer, place, Recorder())[0] == once
    assert sessions[1].computed == []


def test_masks_are_found_by_one_trial_on_each_task(
    spec: TrialSpec,
    tasks: dict[str, TaskSpec],
    place: TransferSurroundings,
    sessions: list[Any],
) -> None:
    observer = Recorder()
    table, found = run_transfer(Transfer(spec, tasks, (), 1, 0.5), place, observer)
    assert observer.begun[0] == ("Finding a mask on each task", 2)
    assert [(mask.name, mask.home) for mask in found] == [("words",) * 2, ("degrees",) * 2]
    for mask, row in zip(found, table.rows, strict=True):
        assert mask.mask.num_kept("head") == SHAPE.total(UnitKind.HEAD) // 2
        assert mask.mask.digest == row.digest
        metadata: Any = mask.mask.metadata
        assert metadata["checkpoint"]["name"] == spec.checkpoint
        assert metadata["task"]["dataset"] == tasks[mask.name].dataset
        assert metadata["milestone"] == 0.5
        assert json.dumps(dict(metadata))
    seeds = {r.settings["seed"] for r in sessions[0].requests if r.stage == "dense"}
    assert seeds == {5, 6}


def test_mask_of_other_counts_before_anything_is_trained(
    spec: TrialSpec,
    tasks: dict[str, TaskSpec],
    place: TransferSurroundings,
    sessions: list[Any],
) -> None:
    other = Mask.unpack("1x1:gA==|1x1:gA==")
    with pytest.raises(MaskError, match=r"mask 'other': was made for 1 layers .* has 2 layers"):
        run_transfer(Transfer(spec, tasks, (name(other, "other"),), 1), place, Recorder())
    assert sessions == []


def test_levels_that_remove_nothing_before_anything_is_trained(
    spec: TrialSpec,
    tasks: dict[str, TaskSpec],
    place: TransferSurroundings,
    sessions: list[Any],
) -> None:
    many = spec.pruning.model_copy(
        update={"schedule": spec.pruning.schedule.model_copy(update={"levels": 50})}
    )
    transfer = Transfer(spec.model_copy(update={"pruning": many}), tasks, (), 1)
    with pytest.raises(ConfigError, match=r"pruning\.schedule\.levels: 50"):
        run_transfer(transfer, place, Recorder())
    assert sessions == []


def test_metric_that_is_not_finite_is_told_with_its_place(
    spec: TrialSpec,
    tasks: dict[str, TaskSpec],
    place: TransferSurroundings,
    sessions: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.search.test_transfer.make_up_metric", lambda weights: float("nan"))
    with pytest.raises(DivergedTrialError, match=r"first on task 'degrees', seed 6: report metric"):
        run_transfer(Transfer(spec, tasks, (name(FIRST),), 1), place, Recorder())


def test_jobs_say_what_they_train() -> None:
    assert Job("movies", 1).name == "dense"
    assert Job("movies", 1, name(FIRST), is_random=True).name == "random as large as first"
    assert Job("movies", 1, name(FIRST)).name == "first"


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(600)
def test_transfer_on_ray_is_what_one_process_computes(
    spec: TrialSpec,
    tasks: dict[str, TaskSpec],
    place: TransferSurroundings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ray_cluster: None,
) -> None:
    @contextmanager
    def connected(*settings: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr("distprune.search.stage_session.connect_cluster", connected)
    transfer = Transfer(spec, tasks, (name(FIRST, "first", "words"),), 2)
    observer = Recorder()
    table, _ = run_transfer(transfer, place, observer)
    assert observer.phases == ["Reading checkpoint and data", "Starting Ray"]
    assert len(observer.done) == 2 * 2 * 3

    @contextmanager
    def open_session(store: Store, *settings: Any) -> Iterator[SequentialSession]:
        yield SequentialSession(CountingExecutor(store))

    monkeypatch.setattr(module, "open_stage_session", open_session)
    here = TransferSurroundings(str(tmp_path / "other"), ResourcesSpec(cpus_per_stage=1))
    expected, _ = run_transfer(transfer, here, Recorder())
    assert table == expected
