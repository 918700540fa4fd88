"""The same through Ray Tune itself: trials in processes of their own, which may die."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ray.tune.execution.tune_controller import TuneController

from distprune.errors import StorageError
from distprune.library.history import Event, History, Outcome, TrialEnded, read_trials
from distprune.library.study_folder import StudyFolder
from distprune.search import study as study_module
from distprune.search import tune_adapters
from distprune.search.ledger import Ledger
from distprune.search.study import Session, _run_trials
from distprune.search.study_file import Study
from distprune.search.trainable import TrialSurroundings
from tests.search.mixed_study import (
    check_history_is_json,
    check_mixed_study,
    check_values,
    make_mixed_study,
)
from tests.search.synthetic import make_study, make_surroundings, open_ledger, walk_synthetic

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own; what is ours is tested without Ray
]

Walk = Callable[[dict[str, Any], TrialSurroundings], None]
ONE_AT_A_TIME = {"resources": {"max_concurrent": 1}}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path, "synthetic")


def run(study: Study, folder: StudyFolder, walk: Walk = walk_synthetic) -> Ledger:
    """Run the study's trials through Ray as the driver does, with `walk` as the trainable."""
    ledger = open_ledger(study, folder)
    with patch.object(study_module, "walk_trial", walk):
        _run_trials(Session(study, folder), ledger, make_surroundings(study), study.spec.resources)
    return ledger


def test_trials_end_as_they_deserve(folder: StudyFolder) -> None:
    study = make_mixed_study(**ONE_AT_A_TIME)
    run(study, folder)
    check_mixed_study(study, folder)
    check_history_is_json(folder)


def test_trials_beside_each_other_are_told_faithfully(folder: StudyFolder) -> None:
    study = make_mixed_study(resources={"max_concurrent": 3})
    ledger = run(study, folder)
    check_values(study, folder)
    assert all(record.end for record in ledger.trials.values())
    check_history_is_json(folder)


def test_nothing_left_starts_nothing(folder: StudyFolder) -> None:
    study = make_study(num_trials=2, **ONE_AT_A_TIME)
    run(study, folder)
    before = folder.history.read_bytes()

    def walk(config: dict[str, Any], surroundings: TrialSurroundings) -> None:
        raise AssertionError("a trial was started")

    run(study, folder, walk)
    assert folder.history.read_bytes() == before


def test_trial_whose_process_dies_once_is_walked_again(folder: StudyFolder, tmp_path: Path) -> None:
    marker = tmp_path / "died"

    def walk(config: dict[str, Any], surroundings: TrialSurroundings) -> None:
        if config["number"] == 1 and not marker.exists():
            marker.touch()
            os._exit(1)
        walk_synthetic(config, surroundings)

    study = make_study(num_trials=3, stopping=None, **ONE_AT_A_TIME)
    run(study, folder, walk)
    assert marker.exists()
    trials = read_trials(History(folder.history).events())
    assert [r.end.outcome for r in trials.values() if r.end] == [Outcome.COMPLETED] * 3
    check_values(study, folder)


def test_trial_whose_process_always_dies_fails_alone(folder: StudyFolder) -> None:
    def walk(config: dict[str, Any], surroundings: TrialSurroundings) -> None:
        if config["number"] == 1:
            os._exit(1)
        walk_synthetic(config, surroundings)

    study = make_study(num_trials=3, stopping=None, **ONE_AT_A_TIME)
    run(study, folder, walk)
    ends = [e for e in History(folder.history).events() if isinstance(e, TrialEnded)]
    outcomes = {end.number: end.outcome for end in ends}
    assert outcomes == {0: Outcome.COMPLETED, 1: Outcome.FAILED, 2: Outcome.COMPLETED}
    assert [end.message for end in ends if end.message] == [
        "the trial's process died again and again"
    ]


def test_process_that_died_while_it_was_kept_costs_no_trial(
    folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node is lost with processes that wait there for the next trial."""
    kept, killed = tmp_path / "kept", tmp_path / "killed"

    def walk(config: dict[str, Any], surroundings: TrialSurroundings) -> None:
        if config["number"] == 0:
            kept.write_text(str(os.getpid()))
        if config["number"] == 1:
            while not kept.exists():
                time.sleep(0.05)
            time.sleep(1.5)  # the process of trial 0 is kept by now
            os.kill(int(kept.read_text()), signal.SIGKILL)
            time.sleep(0.5)
            killed.touch()
        walk_synthetic(config, surroundings)

    def count(resources: Any) -> int:
        return 1 if kept.exists() and not killed.exists() else 2

    monkeypatch.setattr(study_module, "count_concurrent", count)
    monkeypatch.setattr(tune_adapters, "LOOK_S", 0.05)
    study = make_study(num_trials=5, stopping=None)
    run(study, folder, walk)
    assert killed.exists()
    trials = read_trials(History(folder.history).events())
    assert [r.end.outcome for r in trials.values() if r.end] == [Outcome.COMPLETED] * 5
    check_values(study, folder)


def test_more_trials_run_as_the_cluster_grows(
    folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, room = tmp_path / "begun", [1]
    begun.mkdir()

    def walk(config: dict[str, Any], surroundings: TrialSurroundings) -> None:
        (begun / str(config["number"])).touch()
        end = time.monotonic() + 30.0
        while config["number"] < 3 and len(list(begun.iterdir())) < 3:
            assert time.monotonic() < end, "three trials never ran at a time"
            time.sleep(0.02)
        walk_synthetic(config, surroundings)

    def count(resources: Any) -> int:
        room[0] = 3 if list(begun.iterdir()) else room[0]
        return room[0]

    monkeypatch.setattr(study_module, "count_concurrent", count)
    monkeypatch.setattr(tune_adapters, "LOOK_S", 0.05)
    study = make_study(num_trials=4, stopping=None)
    run(study, folder, walk)
    check_values(study, folder)


def test_tune_writes_its_state_once(folder: StudyFolder) -> None:
    """A study goes on from its history; nothing of Tune's is read again."""
    written = []
    save = TuneController.save_to_dir

    def count(controller: TuneController) -> None:
        written.append(controller)
        save(controller)

    with patch.object(TuneController, "save_to_dir", count):
        run(make_study(num_trials=2, **ONE_AT_A_TIME), folder)
    assert len(written) == 1


def test_full_disk_below_tunes_own_files_is_told_in_one_line(folder: StudyFolder) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        patch.object(TuneController, "setup_experiments", side_effect=full),
        pytest.raises(StorageError, match=r"cannot write files of Ray Tune.*; free some space"),
    ):
        run(make_study(num_trials=2, **ONE_AT_A_TIME), folder)


def walk_on_full_disk(config: dict[str, Any], surroundings: TrialSurroundings) -> None:
    """Meet a full disk in trial 1, after its first levels."""

    def run_trial(stages: Any) -> Any:
        raise StorageError("storage '/full': cannot commit; free space")

    if config["number"] == 1:
        from distprune.search.trainable import walk_trial

        with patch("distprune.search.trainable.run_trial", run_trial):
            walk_trial(config, surroundings)
    else:
        walk_synthetic(config, surroundings)


def test_full_disk_ends_the_search_and_leaves_the_trial_to_go_on(
    folder: StudyFolder, tmp_path: Path
) -> None:
    study = make_study(num_trials=3, stopping=None, **ONE_AT_A_TIME)
    with pytest.raises(StorageError, match="storage '/full': cannot commit; free space"):
        run(study, folder, walk_on_full_disk)
    trials = read_trials(History(folder.history).events())
    assert {number: bool(record.end) for number, record in trials.items()} == {0: True, 1: False}
    run(study, folder)
    check_values(study, folder)
    undisturbed = StudyFolder(tmp_path / "undisturbed", "synthetic")
    run(study, undisturbed)
    assert describe(folder) == describe(undisturbed)


def test_history_that_cannot_be_written_ends_the_search(folder: StudyFolder) -> None:
    study = make_study(num_trials=3, stopping=None, **ONE_AT_A_TIME)
    append = History.append
    events: list[Event] = []

    def append_until_full(history: History, event: Event) -> None:
        events.append(event)
        if len(events) > 3:
            raise StorageError("history: cannot be written; free space")
        append(history, event)

    with (
        patch.object(History, "append", append_until_full),
        pytest.raises(StorageError, match="history: cannot be written; free space"),
    ):
        run(study, folder)
    run(study, folder)
    check_values(study, folder)


def describe(folder: StudyFolder) -> list[Any]:
    trials = read_trials(History(folder.history).events())
    return [
        (n, r.start.parameters, [e.report for e in r.reports.values()], r.end and r.end.outcome)
        for n, r in trials.items()
    ]
