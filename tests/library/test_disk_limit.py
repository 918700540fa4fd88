"""The limit while a study runs: kept from a thread of its own, so nobody waits or dies of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distprune.library.disk_limit import DiskLimit
from distprune.library.history import Event, Outcome
from distprune.library.study_folder import StudyFolder
from distprune.store.key import content_key
from distprune.store.store import Store
from tests.library.records import end, make_start, reach

SIZE = 10_000
LIMIT = 3 * SIZE


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "studies", "mine")


@pytest.fixture
def store(folder: StudyFolder) -> Store:
    return Store(str(folder.store))


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def limit(store: Store, folder: StudyFolder, told: list[str]) -> DiskLimit:
    return DiskLimit(store, folder.place, LIMIT, told.append)


def fill(store: Store, number: int = 5) -> list[str]:
    """Commit weights that were used an hour and longer ago, the first of them first."""
    keys = [content_key(f"{time.monotonic()} {index}") for index in range(number)]
    for index, key in enumerate(keys):
        store.commit(key, lambda path: (path / "w").write_bytes(bytes(SIZE)), {"stage": "retrain"})
        manifest = Path(store.root) / "entries" / key[:2] / key / "manifest.json"
        moment = time.time() - 7200 + index
        os.utime(manifest, (moment, moment))
    return keys


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


@pytest.mark.parametrize(
    "event", [reach(0, 1, []), end(0, Outcome.STOPPED)], ids=["milestone", "end"]
)
def test_events_bring_the_store_within_its_limit(
    event: Event, store: Store, limit: DiskLimit, told: list[str]
) -> None:
    keys = fill(store)
    limit.on_event(event)
    wait_until(lambda: store.count_bytes() <= LIMIT)
    limit.finish()
    assert set(store.keys()) == set(keys[-2:])
    assert limit.num_evicted == 3
    assert 3 * SIZE < limit.bytes_evicted < 3 * SIZE + 3000
    assert told == []


def test_a_start_and_a_second_event_look_again(store: Store, limit: DiskLimit) -> None:
    for notify in (lambda: limit.on_start(None), lambda: limit.on_event(end(1))):
        fill(store)
        notify()
        wait_until(lambda: store.count_bytes() <= LIMIT)
    limit.finish()


def test_a_trial_that_begins_asks_for_nothing(store: Store, limit: DiskLimit) -> None:
    fill(store)
    limit.on_phase("Starting Ray")
    limit.on_event(make_start())
    assert limit._thread is None


def test_the_end_looks_once_more_and_waits(store: Store, limit: DiskLimit) -> None:
    fill(store)
    limit.finish()
    assert store.count_bytes() <= LIMIT


def test_nobody_waits_for_the_limit(store: Store, limit: DiskLimit) -> None:
    fill(store)
    with store.eviction():  # another driver is at it
        started = time.monotonic()
        for _ in range(100):
            limit.on_event(end(0))
        assert time.monotonic() - started < 1.0
        assert store.count_bytes() > LIMIT
    limit.finish()
    assert store.count_bytes() <= LIMIT


def test_pins_above_the_limit_are_told_once(
    store: Store, folder: StudyFolder, limit: DiskLimit, told: list[str]
) -> None:
    keys = fill(store)
    for number, key in enumerate(keys[1:]):
        path = folder.evidence(0.1 * (number + 1))
        path.parent.mkdir(parents=True)
        lineage = {"weights": key, "evaluation": "", "evidence": {}}
        path.write_text(json.dumps({"lineage": lineage}))
    limit.on_event(end(0))
    wait_until(lambda: bool(told))
    limit.on_event(end(1))
    limit.finish()
    (line,) = told
    assert line.startswith("store.max_gib: 2.79e-05 GiB is less than the ")
    assert line.endswith("remove the folders of studies that are no longer needed")
    assert set(store.keys()) == set(keys[1:])


def test_what_goes_wrong_is_told_and_kills_nobody(
    store: Store, folder: StudyFolder, limit: DiskLimit, told: list[str]
) -> None:
    keys = fill(store)
    evidence = folder.evidence(0.5)
    evidence.parent.mkdir(parents=True)
    evidence.write_text("{")
    limit.on_event(end(0))
    wait_until(lambda: bool(told))
    assert set(store.keys()) == set(keys)
    evidence.unlink()
    limit.finish()
    (line,) = told
    assert line.startswith("the store's limit is not kept: study ")
    assert "evidence.json cannot be read" in line
    assert store.count_bytes() <= LIMIT
