"""What is found out after a study's end is in the run that it has, once."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from distprune.tracking import later_results, naming
from distprune.tracking.client import open_client
from distprune.tracking.later_results import send_later_results
from distprune.tracking.naming import name_confirmed
from distprune.tracking.tracker import TrackingSummary
from distprune.tracking.trial_run import StudyIdentity
from tests.tracking.conftest import Tracked
from tests.tracking.events import run_trial

pytestmark = pytest.mark.xdist_group("mlflow")

MEAN = name_confirmed(0.5, "lambda_0", "mean")


def send(
    study: Tracked,
    value: float = 0.8,
    step: int = 5,
    identity: str = "id7",
    timeout_s: float = 30.0,
    uri: str | None = None,
) -> TrackingSummary:
    path = study.folder / "confirmation.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    return send_later_results(
        uri or study.uri,
        StudyIdentity(study.name, identity, "accuracy"),
        {MEAN: value},
        step,
        [(path, "")],
        timeout_s,
        delays_s=(0.01,),
    )


def test_name() -> None:
    assert MEAN == "confirm/0.5/lambda_0/mean"


def test_they_are_in_the_run_of_the_study(study: Tracked, history: Any) -> None:
    study.track([*run_trial()])
    assert send(study) == TrackingSummary(1, 0, None)
    (run,) = study.find(naming.KIND_STUDY)
    assert history(MEAN, naming.KIND_STUDY) == [(5, 0.8)]
    assert "confirmation.json" in study.list_files(run)
    assert run.info.status == "FINISHED"


def test_sending_again_changes_nothing(study: Tracked) -> None:
    study.track([*run_trial()])
    send(study)
    before = study.photograph()
    send(study)
    assert study.photograph() == before


def test_more_seeds_are_the_latest(study: Tracked) -> None:
    study.track([*run_trial()])
    send(study, 0.9, step=3)
    send(study, 0.8, step=5)
    (run,) = study.find(naming.KIND_STUDY)
    assert run.data.metrics[MEAN] == 0.8


@pytest.mark.parametrize("identity", ["id7", "another"])
def test_study_that_was_not_tracked(
    identity: str, study: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    if identity == "another":
        study.track([*run_trial()])
    with caplog.at_level(logging.WARNING, "distprune"):
        assert send(study, identity=identity).unsent == 1
    assert "the study has no run" in caplog.text


def test_database_that_is_gone_is_not_made(study: Tracked, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    assert send(study, uri=f"sqlite:///{path}").unsent == 1
    assert not path.exists()


def test_outage_is_waited_for_but_not_for_ever(
    study: Tracked, history: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.track([*run_trial()])
    failures = [ConnectionError("nobody listens")] * 3

    def connect(uri: str) -> Any:
        if failures:
            raise failures.pop()
        return open_client(uri)

    monkeypatch.setattr(later_results, "open_client", connect)
    assert send(study).unsent == 0
    assert history(MEAN, naming.KIND_STUDY) == [(5, 0.8)]
    failures += [ConnectionError("nobody listens")] * 10**6
    started = time.monotonic()
    assert send(study, timeout_s=0.3).unsent == 1
    assert time.monotonic() - started < 10
