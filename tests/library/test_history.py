"""The history: what was appended is read, whatever a crash did to the last line."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distprune.errors import StorageError
from distprune.library.history import Event, History, Outcome, read_trials
from tests.library.records import end, make_start, reach
from tests.trial.results import make_result

EVENTS: list[Event] = [
    make_start(0),
    make_start(1, **{"pruning.rewinding": "continue", "retraining.epochs": 1 / 3}),
    reach(0, 1, [make_result(0, 0.0, 0.9), make_result(1, 0.1, 1 / 3)]),
    reach(0, 2, []),
    end(0),
    end(1, Outcome.FAILED, "line one\nzweite Zeile \u2028 'quoted'"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study" / "history.jsonl"


def write(path: Path, events: list[Event]) -> History:
    history = History(path)
    for event in events:
        history.append(event)
    return history


def test_events_are_read_as_they_were_appended(path: Path) -> None:
    assert list(write(path, EVENTS).events()) == EVENTS
    assert list(History(path).events()) == EVENTS


def test_a_study_that_never_began_has_no_events(path: Path) -> None:
    assert list(History(path).events()) == []
    assert not path.parent.exists()


def test_an_event_is_one_line_of_json(path: Path) -> None:
    write(path, EVENTS)
    lines = path.read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == [type(e).__name__ for e in EVENTS]


@settings(max_examples=30)
@given(cut=st.integers(1, 10_000))
def test_a_line_that_was_cut_off_is_dropped_and_the_next_begins_anew(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "history.jsonl"
    write(path, EVENTS[:3])
    data = path.read_bytes()
    last = len(data) - data[:-1].rindex(b"\n") - 1
    removed = 1 + cut % last  # from the line break alone to the whole line
    path.write_bytes(data[:-removed])
    survives = removed == 1  # nothing but its line break is missing
    kept = EVENTS[:3] if survives else EVENTS[:2]
    assert list(History(path).events()) == kept
    write(path, EVENTS[3:5])
    assert list(History(path).events()) == [*kept, *EVENTS[3:5]]


@pytest.mark.parametrize(
    "line",
    [
        b'{"event": "TrialEnded", "number": 1',
        b"\x00\x00\x00\x00",
        b'{"event": "Unheard"}',
        b'{"event": "TrialEnded", "number": 1}',
        b'{"event": "TrialEnded", "number": 1, "time": 1.0, "outcome": "great"}',
        b"[1, 2]",
        b"3",
        b'{"number": 1}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_line_is_passed_over_with_a_warning(
    path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    history = write(path, EVENTS[:2])
    with path.open("ab") as file:
        file.write(line + b"\n")
    write(path, EVENTS[4:5])
    with caplog.at_level(logging.WARNING):
        assert list(history.events()) == [*EVENTS[:2], EVENTS[4]]
    assert "line 3" in caplog.text


def test_a_history_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot be written .*; free space and start"):
        History(tmp_path / "file" / "history.jsonl").append(EVENTS[0])


def test_trials_are_gathered(path: Path) -> None:
    trials = read_trials(write(path, EVENTS).events())
    assert sorted(trials) == [0, 1]
    assert trials[0].number == 0
    assert sorted(trials[0].reports) == [1, 2]
    assert [level.level for level in trials[0].levels] == [0, 1]
    assert trials[0].end is not None
    assert trials[0].end.outcome is Outcome.COMPLETED
    assert trials[1].reports == {}
    assert trials[1].end is not None
    assert trials[1].end.message == "line one\nzweite Zeile \u2028 'quoted'"


def test_a_trial_that_was_cut_off_has_no_end(path: Path) -> None:
    trials = read_trials(write(path, EVENTS[:4]).events())
    assert trials[0].end is None


def test_a_trial_that_ran_again_keeps_its_latest_reports() -> None:
    first = [make_result(0, 0.0, 0.9), make_result(1, 0.1, 0.8)]
    second = [make_result(0, 0.0, 0.9), make_result(1, 0.1, 0.7)]
    events = [
        make_start(0),
        reach(0, 1, first),
        reach(0, 2, [make_result(2, 0.2, 0.6)]),
        make_start(0),
        reach(0, 1, second),
    ]
    (trial,) = read_trials(iter(events)).values()
    assert [level.level for level in trial.levels] == [0, 1, 2]
    assert [level.metric for level in trial.levels] == [0.9, 0.7, 0.6]


def test_a_trial_whose_start_was_lost_is_named(path: Path) -> None:
    write(path, EVENTS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([b"\x00" * 80 + b"\n", *lines[1:]]))
    with pytest.raises(StorageError, match="the start of trial 0 is missing"):
        read_trials(History(path).events())
