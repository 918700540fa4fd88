"""Pins: what goes on, or is shown to somebody, keeps its weights; at every moment."""

from __future__ import annotations

import fcntl
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.retention import Reference
from distprune.errors import StorageError
from distprune.library.history import (
    Event,
    History,
    MilestoneReached,
    Outcome,
    TrialEnded,
    TrialStarted,
    read_trials,
)
from distprune.library.leaderboard import choose_best
from distprune.library.pins import (
    CLOCK_SLACK_S,
    SHARED_STAGES,
    digest_trials,
    find_pins,
    find_session,
    find_studies,
)
from distprune.library.study_folder import StudyFolder, StudyStorage
from distprune.methods.ticket import Evidence
from distprune.search.driver_lease import hold_study
from distprune.store.inventory import EntrySummary
from distprune.trial.reporter import Objective, report_milestones
from distprune.trial.results import LevelResult, Lineage
from tests.library.records import make_start
from tests.search.synthetic import make_study
from tests.trial.results import make_result

MILESTONES = (0.2, 0.4, 0.6)
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""Two levels a milestone, so that levels between milestones compete too."""


def weights(trial: int, level: int) -> str:
    return f"weights of level {level} of trial {trial}" if level else "dense weights"


def make_level(trial: int, level: int, sparsity: float, metric: float) -> LevelResult:
    lineage = Lineage(f"evaluation {trial} {level}", weights(trial, level), "w", Evidence())
    return make_result(level, sparsity, metric, lineage=lineage)


def make_events(
    trial: int,
    metrics: Sequence[float],
    reference: Reference,
    time: float = 100.0,
    sparsities: Sequence[float] = SPARSITIES,
) -> list[Event]:
    """Return what a trial with these metrics after level 0 writes into the history, its end too."""
    points = [(0.0, reference.dense), *zip(sparsities, metrics, strict=False)]
    levels = [make_level(trial, level, *point) for level, point in enumerate(points)]
    reports = report_milestones(levels, MILESTONES, reference, Objective.CURVE)
    start = make_start(trial)
    return [
        TrialStarted(trial, time, start.spec, start.parameters, start.proposal),
        *(MilestoneReached(trial, time + 10 * r.milestone, r) for r in reports),
        TrialEnded(trial, time + 50, Outcome.COMPLETED),
    ]


def digest(events: list[Event]) -> Any:
    return digest_trials(read_trials(iter(events)), MILESTONES)


@st.composite
def trial_events(draw: st.DrawFn, trial: int, reference: Reference) -> list[Event]:
    """Draw the events of a trial of any schedule, one that was stopped perhaps."""
    metric = st.sampled_from([0.55, 0.6, 0.7, 0.8, 0.85])
    sparsities = draw(st.lists(st.sampled_from(SPARSITIES), min_size=1, unique=True).map(sorted))
    metrics = draw(st.lists(metric, min_size=len(sparsities), max_size=len(sparsities)))
    start, *reports, end = make_events(trial, metrics, reference, sparsities=sparsities)
    return [start, *reports[: draw(st.integers(0, len(reports)))], end]


@st.composite
def histories(draw: st.DrawFn) -> tuple[Reference, list[Event]]:
    """Draw the history of a few trials whose events are interleaved."""
    dense, floor = draw(st.sampled_from([(0.9, 0.5), (0.5, 0.9)]))
    reference = Reference(dense=dense, floor=floor, higher_is_better=dense > floor)
    queues = [draw(trial_events(trial, reference)) for trial in range(draw(st.integers(1, 4)))]
    events: list[Event] = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        events.append(queue.pop(0))
    return reference, events


@given(histories())
def test_the_winner_is_pinned_from_its_report_on(drawn: tuple[Reference, list[Event]]) -> None:
    """So when the study ends, the weights of its best masks are there to be evaluated."""
    reference, events = drawn
    trials = read_trials(iter(events))
    for milestone in MILESTONES:
        winner = choose_best(trials.values(), milestone, reference.higher_is_better)
        if winner is None:
            continue
        key = winner.result.lineage.weights
        first = next(
            number
            for number, event in enumerate(events)
            if isinstance(event, MilestoneReached)
            and any(level.lineage.weights == key for level in event.report.new_levels)
        )
        for length in range(first + 1, len(events) + 1):
            assert key in digest(events[:length]).best


@given(histories())
def test_trials_that_have_not_ended_keep_their_last_level(
    drawn: tuple[Reference, list[Event]],
) -> None:
    _, events = drawn
    for length in range(len(events) + 1):
        trials = read_trials(iter(events[:length]))
        expected = {
            trial.levels[-1].lineage.weights
            for trial in trials.values()
            if trial.end is None and trial.levels
        }
        assert digest(events[:length]).last == expected


def test_a_milestone_that_no_trial_reported_has_a_winner_too() -> None:
    """A one-shot trial that was stopped at the first milestone competes at all of them."""
    reference = Reference(dense=0.9, floor=0.5)
    one_shot = make_events(0, [0.6], reference, sparsities=[0.6])[:2]
    better = make_events(1, [0.8], reference, sparsities=[0.2])[:2]
    ends: list[Event] = [TrialEnded(trial, 300.0, Outcome.STOPPED) for trial in (0, 1)]
    assert digest([*one_shot, *better, *ends]).best == {weights(0, 1), weights(1, 1)}


def test_the_direction_of_the_metric_is_read_from_retention() -> None:
    for dense, floor in ((0.9, 0.5), (0.5, 0.9)):
        reference = Reference(dense=dense, floor=floor, higher_is_better=dense > floor)
        events = make_events(0, [0.8, 0.8, 0.7, 0.7], reference)
        best = 1 if dense > floor else 3
        assert weights(0, best + 1) in digest(events).best
        assert weights(0, 4 - best) not in digest(events).best


def test_without_a_direction_both_are_kept() -> None:
    reference = Reference(dense=0.9, floor=0.5)
    first, second = (make_events(trial, [0.9, 0.9], reference)[:2] for trial in (0, 1))
    assert digest([*first, *second]).best == {weights(0, 2)}
    # The level between two milestones alone differs, and no report says how.
    low = make_events(0, [0.9, 0.9, 0.7, 0.9], reference)
    assert digest(low).best == {weights(0, 3), weights(0, 4)}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study whose first trial has ended and whose second is on its way."""
    folder = StudyFolder(tmp_path, "mine")
    reference = Reference(dense=0.9, floor=0.5)
    first = make_events(0, [0.9, 0.85, 0.8, 0.7, 0.6, 0.55], reference, time=100.0)
    second = make_events(1, [0.7, 0.6, 0.6, 0.6], reference, time=200.0)
    write_history(folder, [*first, *second[:2]])
    write_environment(folder)
    folder.configuration.write_text(yaml.safe_dump({"milestones": list(MILESTONES)}))
    return folder


def write_history(folder: StudyFolder, events: list[Event]) -> None:
    for event in events:
        History(folder.history).append(event)
    moment = max(event.time for event in events)
    os.utime(folder.history, (moment, moment))


def write_environment(folder: StudyFolder, **inputs: str) -> None:
    folder.root.mkdir(exist_ok=True)
    values = {"checkpoint": "bert", "data": "movies", "precision": "float32", **inputs}
    folder.environment.write_text(json.dumps({"study_id": "x", "inputs": values}))


def write_evidence(folder: StudyFolder, sparsity: float, key: str) -> Path:
    path = folder.evidence(sparsity)
    path.parent.mkdir(parents=True, exist_ok=True)
    lineage = Lineage("evaluation", key, "w", Evidence("pretrained", None, "mlm"))
    values = {"weights": key, "evaluation": "evaluation", "weights_file": "w"}
    values["evidence"] = {"pretrained_key": lineage.evidence.pretrained_key, "finetuned_key": None}
    path.write_text(json.dumps({"lineage": values}))
    return path


def finish(folder: StudyFolder, counted: int) -> None:
    """Give a study a leaderboard that counts so many trials."""
    board = {
        "schema": "distprune.leaderboard/1",
        "study": folder.name,
        "metric": "accuracy",
        "higher_is_better": True,
        "dense": {},
        "floor": {},
        "outcomes": {"completed": counted},
        "pretrained_objective": None,
        "rows": [],
    }
    folder.leaderboard_json.write_text(json.dumps(board))


def make_entry(key: str, **record: Any) -> EntrySummary:
    return EntrySummary(key, record, 1, 1.0, 0.0, 0.0)


def make_shared(stage: str, **changes: Any) -> EntrySummary:
    settings = {"checkpoint": "bert", "precision": "float32"}
    settings |= {name: value for name, value in changes.items() if name != "task"}
    inputs = {"task": changes.get("task", "prepared movies")}
    key = f"{stage} of {'and'.join(changes.values()) or 'mine'}"
    return make_entry(key, stage=stage, settings=settings, inputs=inputs)


PREPARED = [
    make_entry("prepared movies", stage="prepare", settings={"source": "movies"}, inputs={}),
    make_entry("prepared books", stage="prepare", settings={"source": "books"}, inputs={}),
]
ENTRIES = [
    *PREPARED,
    *(make_shared(stage) for stage in SHARED_STAGES),
    make_shared("dense", checkpoint="electra"),
    make_shared("dense", precision="bfloat16"),
    make_shared("dense", task="prepared books"),
    make_shared("retrain"),
    make_entry("strange"),
    make_entry("stranger", stage="dense", settings=3, inputs=None),
]
SHARED = {f"{stage} of mine" for stage in SHARED_STAGES}


def test_a_study_under_way_keeps_what_going_on_needs(folder: StudyFolder) -> None:
    pins = find_pins(folder.place, ENTRIES)
    best = {weights(0, 2), weights(0, 4), weights(0, 6)}
    assert set(pins.reasons) == best | {weights(1, 2)} | SHARED
    assert pins.reasons[weights(0, 2)] == "best so far of mine"
    assert pins.reasons[weights(1, 2)] == "trials under way of mine"
    assert pins.reasons["dense of mine"] == "shared by the trials of mine"
    assert {weights(0, level) for level in range(7)} <= pins.known
    assert weights(1, 3) not in pins.known
    assert (pins.in_use_since, pins.running) == (math.inf, ())


def test_a_study_that_is_over_keeps_its_library_only(folder: StudyFolder) -> None:
    write_history(folder, [TrialEnded(1, 300.0, Outcome.STOPPED)])
    assert set(find_pins(folder.place, ENTRIES).reasons) >= SHARED  # it has no leaderboard yet
    finish(folder, counted=1)  # of an earlier session, before the study was extended
    assert set(find_pins(folder.place, ENTRIES).reasons) >= SHARED
    finish(folder, counted=2)
    write_evidence(folder, 0.2, weights(0, 2))
    pins = find_pins(folder.place, ENTRIES)
    assert set(pins.reasons) == {weights(0, 2), "evaluation", "pretrained"}
    assert set(pins.reasons.values()) == {"mask library of mine"}
    assert weights(0, 4) in pins.known


def test_a_study_that_is_running_is_not_over(folder: StudyFolder) -> None:
    write_history(folder, [TrialEnded(1, 300.0, Outcome.STOPPED)])
    finish(folder, counted=2)
    with hold_study(folder.lease, folder.name):
        pins = find_pins(folder.place, ENTRIES)
    assert set(pins.reasons) >= SHARED
    assert (pins.in_use_since, pins.running) == (math.inf, ("mine",))  # no trial is on its way


def test_what_running_trials_used_since_they_last_spoke_is_in_use(folder: StudyFolder) -> None:
    with hold_study(folder.lease, folder.name):
        os.utime(folder.lease, (150.0, 150.0))
        assert find_pins(folder.place, []).in_use_since == 210.0 - CLOCK_SLACK_S
        os.utime(folder.lease, (1150.0, 1150.0))  # an earlier session left the trial unfinished
        assert find_pins(folder.place, []).in_use_since == 1150.0 - CLOCK_SLACK_S


def test_the_trial_that_has_been_silent_for_longest_counts(folder: StudyFolder) -> None:
    write_history(folder, [make_start(2)])
    start = make_start(2)
    assert start.time == 102.0
    os.utime(folder.history, (210.0, 210.0))
    with hold_study(folder.lease, folder.name):
        os.utime(folder.lease, (50.0, 50.0))
        assert find_pins(folder.place, []).in_use_since == 102.0 - CLOCK_SLACK_S


def test_a_driver_whose_clock_is_ahead_is_understood(folder: StudyFolder) -> None:
    with hold_study(folder.lease, folder.name):
        os.utime(folder.lease, (50.0, 50.0))
        for file_system_time, expected in ((110.0, 110.0), (900.0, 210.0)):
            os.utime(folder.history, (file_system_time, file_system_time))
            in_use_since = find_pins(folder.place, []).in_use_since
            assert in_use_since == expected - CLOCK_SLACK_S


def test_a_study_before_its_first_trial_keeps_what_it_shares(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "mine")
    write_environment(folder)
    assert set(find_pins(StudyStorage(tmp_path), ENTRIES).reasons) == SHARED
    folder.environment.write_text('{"study_id": "x"}')  # before it looked at data and hardware
    assert find_pins(StudyStorage(tmp_path), ENTRIES).reasons == {}


def test_a_study_that_was_set_aside_keeps_its_library(tmp_path: Path) -> None:
    from distprune.search.study_state import open_study

    folder = StudyFolder(tmp_path, "synthetic")
    open_study(make_study(), folder, fresh=False)
    write_environment(folder)
    write_history(folder, make_events(0, [0.8, 0.8], Reference(0.9, 0.5))[:2])
    write_evidence(folder, 0.2, weights(0, 2))
    assert set(find_pins(StudyStorage(tmp_path), ENTRIES).reasons) > SHARED
    open_study(make_study(), folder, fresh=True)
    pins = find_pins(StudyStorage(tmp_path), ENTRIES)
    assert set(pins.reasons) == {weights(0, 2), "evaluation", "pretrained"}
    (reason,) = set(pins.reasons.values())
    assert reason.startswith("mask library of synthetic.before-")


def test_studies_are_told_from_other_folders(folder: StudyFolder) -> None:
    (folder.storage / "store" / "masks").mkdir(parents=True)
    (folder.storage / "notes").mkdir()
    (folder.storage / "masks").write_text("a file")
    write_evidence(StudyFolder(folder.storage, "shared by a friend"), 0.5, "theirs")
    assert [f.name for f in find_studies(folder.place)] == ["mine", "shared by a friend"]
    assert find_pins(folder.place, []).reasons["theirs"] == "mask library of shared by a friend"


@pytest.mark.parametrize("damage", ["evidence", "history", "environment", "study.yaml"])
def test_what_cannot_be_read_is_an_error(folder: StudyFolder, damage: str) -> None:
    """Nothing is removed on the word of a damaged file."""
    if damage == "evidence":
        write_evidence(folder, 0.2, "x").write_text('{"lineage": {}}')
    elif damage == "history":
        lines = folder.history.read_text().splitlines(keepends=True)
        folder.history.write_text("".join(lines[1:]))
    elif damage == "environment":
        folder.environment.write_text("{")
    else:
        folder.configuration.write_text("milestones: [0.2,\n  ")
    with pytest.raises(StorageError, match=rf"study .*mine: .*{damage}.* nothing is removed") as e:
        find_pins(folder.place, ENTRIES)
    assert "\n" not in str(e.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        find_pins(StudyStorage(tmp_path / "nowhere"), [])


HOLDER = """
import sys
from pathlib import Path
from distprune.search.driver_lease import hold_study
with hold_study(Path(sys.argv[1]), "mine"):
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(folder: StudyFolder) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.lease)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


def test_a_session_lasts_as_long_as_its_driver(
    folder: StudyFolder, holder: subprocess.Popen[str]
) -> None:
    started = find_session(folder)
    assert started is not None
    assert abs(started - time.time()) < 60
    holder.kill()
    holder.wait()
    assert folder.lease.exists()
    assert find_session(folder) is None
    assert find_session(StudyFolder(folder.storage, "other")) is None


def test_asking_keeps_no_driver_out(folder: StudyFolder) -> None:
    folder.lease.touch()
    with folder.lease.open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        release = threading.Timer(0.03, fcntl.flock, (asking, fcntl.LOCK_UN))
        release.start()
        with hold_study(folder.lease, folder.name):
            pass
        release.join()
