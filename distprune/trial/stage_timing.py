"""What stages take here: real ones, run on a few batches of the real data and thrown away.

A kind of stage runs three times, each time on a copy of the data of its own, so that nothing is
found stored. The first run meets a model that the process has not computed with, as most stages of
a study do; the second does not; the third sees several times the examples. Third less second is the
time of the examples. First less second is that of the first batch of each length: CPUs compile
their kernels for it. The data of a study have more lengths than a few batches of them.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from distprune.core.controls import draw_random_mask
from distprune.core.mask import Mask
from distprune.methods.ticket import Ticket
from distprune.store.key import content_key
from distprune.store.store import Store
from distprune.tasks.prepared import FACTS_FILE, PreparedTask, SplitName
from distprune.trial.context import TrialContext
from distprune.trial.executor import run_stage
from distprune.trial.request import StageRequest
from distprune.trial.spec import TrialSpec
from distprune.trial.stage_kinds import (
    StageKind,
    count_examples,
    count_lengths,
    find_kind,
    find_mask,
)
from distprune.trial.stages import TrialStages

NUM_BATCHES = 6
"""Batches of the data, of evenly spaced lengths: as many tell what a step takes on average."""

ALL_EXAMPLES = 1 << 30


class Run(StrEnum):
    """The three runs of a kind of stage."""

    COLD = "cold"
    WARM = "warm"
    LONG = "long"


REPETITIONS = {Run.COLD: 1, Run.WARM: 1, Run.LONG: 3}
"""Times that the data of each run have an example."""


@dataclass(frozen=True)
class Miniature:
    """A few batches of a prepared task, as files; small enough to travel.

    Attributes:
        files: For each run, content by path below the task's folder.
        counts: For each run, examples of each split.
        lengths: Different lengths of the batches of each split.
    """

    files: Mapping[Run, Mapping[str, bytes]]
    counts: Mapping[Run, Mapping[str, int]]
    lengths: Mapping[str, int]


@dataclass(frozen=True)
class Sample:
    """A stage as a trial asks for it, and the trial."""

    spec: TrialSpec
    request: StageRequest


@dataclass(frozen=True)
class TimingJob:
    """What to time.

    Attributes:
        context: Facts of the study.
        spec: Any trial of it.
        samples: A stage of each kind; dense fine-tuning is not among them, it is always timed.
        target: A mask of the study's target sparsity.
        miniature: The data.
    """

    context: TrialContext
    spec: TrialSpec
    samples: tuple[Sample, ...]
    target: Mask
    miniature: Miniature


@dataclass(frozen=True)
class StageTiming:
    """What one kind of stage takes.

    Attributes:
        fixed_s: Seconds beside its batches: reading, writing.
        length_s: Seconds that the first batch of a length takes longer with a model that is new.
        dense_s: Seconds an example with the dense model.
        target_s: Seconds an example with the compact model of the target's mask.
        dense_bytes: Size of what it stores of the dense model.
        target_bytes: Size of what it stores of the compact model.
    """

    fixed_s: float
    length_s: float
    dense_s: float
    target_s: float
    dense_bytes: int
    target_bytes: int


@dataclass(frozen=True)
class Timings:
    """What was timed in one process.

    Attributes:
        kinds: By kind of stage.
        start_s: Seconds that the first stage of the process took longer than later ones do.
        total_s: Seconds that the timing took.
    """

    kinds: Mapping[StageKind, StageTiming]
    start_s: float
    total_s: float


def make_miniature(
    task: PreparedTask, batch_sizes: Mapping[SplitName, int], device: str
) -> Miniature:
    """Choose batches of evenly spaced lengths.

    Args:
        task: The prepared task.
        batch_sizes: Examples of a batch, by split that is needed.
        device: `cpu` or `cuda`, where they will be computed.
    """
    from distprune.trial.work.batches import measure_lengths

    splits = {name: task.split(name) for name in batch_sizes}
    tokens = {name: measure_lengths(split) for name, split in splits.items()}
    rows = {
        name: choose_rows(tokens[name], size, NUM_BATCHES) for name, size in batch_sizes.items()
    }
    written = {
        repetitions: _write_rows(
            task, {name: splits[name].select(rows[name] * repetitions) for name in splits}
        )
        for repetitions in set(REPETITIONS.values())
    }
    return Miniature(
        files={run: written[REPETITIONS[run]] for run in Run},
        counts={
            run: {str(name): len(rows[name]) * REPETITIONS[run] for name in rows} for run in Run
        },
        lengths={
            str(name): count_batch_lengths([tokens[name][row] for row in rows[name]], size, device)
            for name, size in batch_sizes.items()
        },
    )


def count_batch_lengths(tokens: Sequence[int], batch_size: int, device: str) -> int:
    """Count the different lengths of batches, padding included.

    Args:
        tokens: Tokens of each example.
        batch_size: Examples of a batch.
        device: `cpu` or `cuda`.
    """
    from distprune.trial.work.batches import LENGTH_MULTIPLES

    longest = sorted(tokens, reverse=True)[::batch_size]
    return len({math.ceil(number / LENGTH_MULTIPLES[device]) for number in longest})


def _write_rows(task: PreparedTask, splits: Mapping[SplitName, Any]) -> dict[str, bytes]:
    """Return the files of a prepared task with other splits."""
    from distprune.tasks.sources import quiet_datasets

    with tempfile.TemporaryDirectory() as scratch, quiet_datasets():
        folder = Path(scratch)
        for name, split in splits.items():
            split.save_to_disk(str(folder / name))
        (folder / FACTS_FILE).write_text(task.facts.model_dump_json())
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def choose_rows(lengths: Sequence[int], batch_size: int, num_batches: int) -> list[int]:
    """Choose whole batches at even distances in the order of length.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples of a batch.
        num_batches: How many to choose; all examples where there are not more.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    num_whole = len(order) // batch_size
    if num_whole <= num_batches:
        return order
    starts = [int((index + 0.5) * num_whole / num_batches) for index in range(num_batches)]
    return [row for start in starts for row in order[start * batch_size :][:batch_size]]


def time_stages(job: TimingJob, threads: int | None = None, gpus: float = 0.0) -> Timings:
    """Time each kind of stage in this process; nothing is left of it.

    Args:
        job: What to time.
        threads: Threads to compute with; None = as set.
        gpus: GPUs that the process was granted.
    """
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="distprune-plan-") as scratch:
        bench = _Bench(job, Store(str(Path(scratch) / "store")), threads, gpus)
        dense = {run: bench.run(run, job.spec, _fine_tune) for run in Run}
        kinds = {
            # A mask for each kind: in a study, too, most stages meet a model of their own.
            find_kind(sample.request): bench.time_kind(sample, draw_random_mask(job.target, number))
            for number, sample in enumerate(job.samples)
        }
    start_s = dense[Run.COLD].seconds - dense[Run.WARM].seconds
    # A study's first stage begins its worker, which counts by itself: so no run is cold here.
    kinds[StageKind("dense")] = _sum_up(dense[Run.WARM], dense[Run.WARM], dense[Run.LONG])
    return Timings(kinds, max(0.0, start_s), time.perf_counter() - began)


@dataclass(frozen=True)
class _Timed:
    """One stage that was computed."""

    key: str
    seconds: float
    num_examples: float
    num_lengths: int
    num_bytes: int


Ask = Callable[[TrialStages], object]
"""Asks for stages; the last one that has to be computed is timed."""


class _Bench:
    """Computes stages on the miniature, in a store of its own; implements `StageExecutor`."""

    def __init__(self, job: TimingJob, store: Store, threads: int | None, gpus: float) -> None:
        self._job = job
        self._store = store
        self._limits = (threads, gpus)
        self._tasks = {run: self._commit_task(run) for run in Run}
        self._run = Run.COLD
        self._computed: list[_Timed] = []

    def ensure(self, request: StageRequest) -> bool:
        """Compute a stage unless it is stored, and note what it took."""
        began = time.perf_counter()
        is_computed = run_stage(request, self._store, *self._limits)
        seconds = time.perf_counter() - began
        entry = self._store.find(request.key)
        assert entry is not None  # it was committed a moment ago
        if is_computed:
            small = self._job.miniature
            num_examples = count_examples(request, small.counts[self._run])
            num_lengths = count_lengths(request, small.lengths, num_examples)
            timed = _Timed(request.key, seconds, num_examples, num_lengths, entry.num_bytes)
            self._computed.append(timed)
        return is_computed

    def run(self, run: Run, spec: TrialSpec, ask: Ask) -> _Timed:
        """Compute what `ask` asks for, on the data of a run, and return what it took."""
        context = replace(self._job.context, prepared=self._tasks[run], rewinding_points=(0.0, 1.0))
        self._run = run
        ask(TrialStages(_shorten(spec), context, self._store, self))
        # No two runs of a kind have the same key, so something was computed.
        return self._computed[-1]

    def time_kind(self, sample: Sample, target: Mask) -> StageTiming:
        """Time a kind of stage with the compact model of `target`, and with the dense one."""
        compact = [self._run_kind(run, sample, target) for run in Run]
        if find_mask(sample.request) is None:
            return _sum_up(*compact)
        whole = Mask.dense(self._job.context.shape)
        dense = [self._run_kind(run, sample, whole) for run in (Run.WARM, Run.LONG)]
        return replace(
            _sum_up(*compact), dense_s=_time_example(*dense), dense_bytes=dense[0].num_bytes
        )

    def _run_kind(self, run: Run, sample: Sample, mask: Mask) -> _Timed:
        timed = self.run(run, sample.spec, partial(_ask_for, sample.request, mask))
        if sample.request.stage == "retrain":
            # Weights of a large model, five times for each process of a node, could fill its disk.
            self._discard(timed.key)
        return timed

    def _discard(self, key: str) -> None:
        for entry in self._store.list_entries():
            if entry.key == key:
                self._store.remove(entry)

    def _commit_task(self, run: Run) -> str:
        key = content_key({"miniature": str(run)})

        def write(folder: Path) -> None:
            for name, content in self._job.miniature.files[run].items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

        self._store.commit(key, write, {})
        return key


def _fine_tune(stages: TrialStages) -> None:
    stages.dense()


def _ask_for(request: StageRequest, mask: Mask, stages: TrialStages) -> None:
    """Ask for a stage of the kind of `request` under `mask`."""
    weights = stages.dense().weights
    if request.stage == "probe":
        stages.probe()
    elif request.stage == "retrain":
        stages.retrain(weights, mask)
    elif request.stage == "evaluate":
        stages.evaluate_weights(weights, mask, "search")
    elif request.settings["objective"] == "mlm":
        stages.score_pretrained(mask)
    else:
        stages.score_finetuned(Ticket(0, 0.0, mask, weights))


def _shorten(spec: TrialSpec) -> TrialSpec:
    """Return a trial that sees each example of the miniature once."""
    once = {"epochs": 1.0, "steps": None}
    importance = spec.pruning.importance.model_copy(update={"examples": ALL_EXAMPLES})
    return spec.model_copy(
        update={
            "fine_tuning": spec.fine_tuning.model_copy(update=once),
            "retraining": spec.retraining.model_copy(update=once),
            "pruning": spec.pruning.model_copy(update={"importance": importance}),
        }
    )


def _sum_up(cold: _Timed, warm: _Timed, long: _Timed) -> StageTiming:
    """Return what a kind of stage takes with one model."""
    example_s = _time_example(warm, long)
    length_s = max(0.0, cold.seconds - warm.seconds) / cold.num_lengths if cold.num_lengths else 0.0
    batches_s = cold.num_examples * example_s + cold.num_lengths * length_s
    return StageTiming(
        fixed_s=max(0.0, cold.seconds - batches_s),
        length_s=length_s,
        dense_s=example_s,
        target_s=example_s,
        dense_bytes=cold.num_bytes,
        target_bytes=cold.num_bytes,
    )


def _time_example(warm: _Timed, long: _Timed) -> float:
    more = long.num_examples - warm.num_examples
    return max(0.0, long.seconds - warm.seconds) / more if more else 0.0
