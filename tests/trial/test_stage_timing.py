"""Timing of real stages on a few batches of the tiny task."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from distprune.store.store import Store
from distprune.tasks.prepared import PreparedTask
from distprune.trial.runner import run_trial
from distprune.trial.stage_kinds import StageKind, find_kind
from distprune.trial.stage_timing import (
    Miniature,
    Run,
    Sample,
    TimingJob,
    _sum_up,
    _Timed,
    choose_rows,
    count_batch_lengths,
    make_miniature,
    time_stages,
)
from distprune.trial.stages import TrialStages
from tests.trial.studies import CannedExecutor, TinyStudy, keep

pytestmark = pytest.mark.filterwarnings("ignore")


def test_few_batches_are_all_chosen_longest_first() -> None:
    assert choose_rows([1, 5, 3, 5], batch_size=2, num_batches=2) == [1, 3, 2, 0]
    assert choose_rows([1, 5, 3], batch_size=4, num_batches=1) == [1, 2, 0]


def test_chosen_batches_are_evenly_spaced_by_length() -> None:
    """Five batches of two, of which the second and the fourth are in the middle of their halves."""
    lengths = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert choose_rows(lengths, batch_size=2, num_batches=2) == [7, 6, 3, 2]
    assert choose_rows(lengths, batch_size=2, num_batches=1) == [5, 4]


def timed(seconds: float, num_examples: float, num_lengths: int = 0) -> _Timed:
    return _Timed("key", seconds, num_examples, num_lengths, 10)


def test_time_divides_into_examples_lengths_and_the_rest() -> None:
    """10 examples more take 5 s more; the model was new to the batches of 2 lengths, for 3 s."""
    timing = _sum_up(timed(9.0, 10, 2), timed(6.0, 10, 2), timed(11.0, 20, 2))
    assert (timing.fixed_s, timing.length_s, timing.target_s) == (1.0, 1.5, 0.5)


def test_time_without_examples_is_fixed() -> None:
    timing = _sum_up(timed(2.0, 0), timed(1.0, 0), timed(1.0, 0))
    assert (timing.fixed_s, timing.length_s) == (2.0, 0.0)


def test_no_time_is_negative() -> None:
    timing = _sum_up(timed(1.0, 10, 2), timed(2.0, 10, 2), timed(1.5, 20, 2))
    assert (timing.fixed_s, timing.length_s, timing.target_s) == (1.0, 0.0, 0.0)


def test_lengths_of_batches_are_those_that_they_are_padded_to() -> None:
    """Batches of two, longest first: 9 (padded to 12), 7, 5 (both to 8), 1 (to 4)."""
    tokens = [1, 9, 7, 6, 5, 5, 8]
    assert count_batch_lengths(tokens, batch_size=2, device="cpu") == 3
    assert count_batch_lengths(tokens, batch_size=7, device="cpu") == 1
    assert count_batch_lengths(tokens, batch_size=2, device="cuda") == 2


def make_small(study: TinyStudy) -> Miniature:
    context = study.resolve(study.make_spec())
    entry = study.store.find(context.prepared)
    assert entry is not None
    return make_miniature(
        PreparedTask.open(entry.path("facts.json").parent), {"train": 8, "search": 4}, "cpu"
    )


def test_miniature_has_a_few_batches_of_the_data(study: TinyStudy, tmp_path: Path) -> None:
    small = make_small(study)
    assert small.counts[Run.COLD] == small.counts[Run.WARM] == {"train": 48, "search": 24}
    assert small.lengths == {"train": 2, "search": 2}
    assert small.counts[Run.LONG] == {"train": 144, "search": 72}
    for run, folder in ((run, tmp_path / run) for run in Run):
        for name, content in small.files[run].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        task = PreparedTask.open(folder)
        assert {name: len(task.split(name)) for name in ("train", "search")} == small.counts[run]


def list_samples(study: TinyStudy, folder: Path) -> tuple[Sample, ...]:
    """Return a stage of each kind that two trials ask for, dense fine-tuning left out."""
    samples: dict[StageKind, Sample] = {}
    for number, (criterion, weight) in enumerate((("abs_gradient", 0.5), ("magnitude", 0.0))):
        spec = study.make_spec(
            pruning={"schedule": {"levels": 1}, "importance": {"criterion": criterion}},
            retraining={"distillation": {"weight": weight}},
        )
        executor = CannedExecutor(Store(str(folder / str(number))))
        list(run_trial(TrialStages(spec, study.resolve(spec), executor.store, executor)))
        for request in executor.requests:
            samples.setdefault(find_kind(request), Sample(spec, request))
    skipped = ("dense", "snapshot")
    return tuple(sample for kind, sample in samples.items() if kind.stage not in skipped)


@pytest.mark.parametrize("has_head", [True, False], ids=["mlm", "probe"])
def test_each_kind_is_timed_and_nothing_is_left(
    has_head: bool,
    study: TinyStudy,
    body_study: TinyStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = study if has_head else body_study
    samples = list_samples(tiny, tmp_path / "canned")
    stored = set(tiny.store.keys())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    spec = tiny.make_spec()
    job = TimingJob(tiny.resolve(spec), spec, samples, keep(4, 20), make_small(tiny))
    timings = time_stages(job, threads=1)
    wanted = {"dense", "evaluate", "retrain", "retrain (distilled)", "score (magnitude)"}
    by_source = {"score (task, example)"} | ({"score (mlm, example)"} if has_head else {"probe"})
    assert {str(kind) for kind in timings.kinds} == wanted | by_source
    for kind, timing in timings.kinds.items():
        assert timing.fixed_s >= 0.0
        assert timing.dense_bytes > 0
        if kind.stage == "retrain":
            assert timing.target_bytes < timing.dense_bytes
    assert 0.0 <= timings.start_s < timings.total_s
    assert set(tiny.store.keys()) == stored
    assert list(scratch.iterdir()) == []
