"""Running a stage: once, whole or not at all, with its lineage beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distprune.errors import StageError
from distprune.store.store import Store
from distprune.trial import executor
from distprune.trial.executor import InProcessExecutor, find_work, run_stage
from distprune.trial.request import STAGE_VERSIONS, StageRequest
from tests.trial.studies import TinyStudy

REQUEST = StageRequest(stage="score", settings={"seed": 1}, inputs={"task": "a" * 64})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def replace_work(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> list[str]:
    """Make every stage write one file, then fail with `error`; list what ran."""
    ran = []

    def work(request: StageRequest, store: Store, folder: Path) -> None:
        ran.append(request.stage)
        (folder / "result").write_text(request.key)
        if error is not None:
            raise error

    monkeypatch.setattr(executor, "find_work", lambda stage: work)
    return ran


def test_a_stage_runs_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = replace_work(monkeypatch)
    in_process = InProcessExecutor(store)
    in_process.ensure(REQUEST)
    in_process.ensure(replace(REQUEST, places={"checkpoint": "/moved"}))
    assert ran == ["score"]
    entry = store.find(REQUEST.key)
    assert entry is not None
    assert entry.path("result").read_text() == REQUEST.key


def test_the_request_is_stored_as_lineage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_work(monkeypatch)
    run_stage(REQUEST, store)
    entry = store.find(REQUEST.key)
    assert entry is not None
    assert entry.record["stage"] == "score"
    assert entry.record["version"] == STAGE_VERSIONS["score"]
    assert entry.record["inputs"] == {"task": "a" * 64}


def test_a_stage_that_fails_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = replace_work(monkeypatch, ArithmeticError("no"))
    for _ in range(2):
        with pytest.raises(ArithmeticError, match="no"):
            run_stage(REQUEST, store)
    assert ran == ["score", "score"]
    assert not store.has(REQUEST.key)
    assert not list(Path(store.root).rglob("result"))


@pytest.mark.parametrize("stage", list(STAGE_VERSIONS))
def test_every_stage_has_its_work(stage: str) -> None:
    assert find_work(stage).__module__ == f"distprune.trial.work.{stage}"


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'distil' is unknown; there are prepare, dense"):
        find_work("distil")


def test_an_input_that_is_gone_is_named(study: TinyStudy) -> None:
    stages = study.make_stages()
    request = StageRequest(
        stage="evaluate",
        settings={"mask": "2x4:/w==|2x20://////8=", "file": "weights", "num_labels": 2},
        inputs={"task": stages.context.prepared, "weights": "0" * 64},
        places={"checkpoint": str(study.checkpoint)},
    )
    with pytest.raises(StageError, match=r"input weights \(0{64}\) is not in the store"):
        run_stage(request, study.store)
