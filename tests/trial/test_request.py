"""Keys: what decides a result decides its key, and nothing else does."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from distprune.trial import request
from distprune.trial.request import STAGE_VERSIONS, StageRequest

PINNED = "e73a27d9bf1d910e1f9abf76c19b522ee3aef99a42879596413d06dd1044a2b0"
"""Key of `make_request()`; if this changes, no stored result is found again."""


def make_request(**changes: Any) -> StageRequest:
    values: dict[str, Any] = {
        "stage": "retrain",
        "settings": {"recipe": {"epochs": 3.0, "steps": None}, "seed": 7, "mask": "1x8:/w=="},
        "inputs": {"start": "a" * 64, "task": "b" * 64},
        "places": {"checkpoint": "/somewhere"},
    }
    return StageRequest(**values | changes)


def test_the_key_of_a_fixed_request_never_changes() -> None:
    assert make_request().key == PINNED


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": "probe"},
        {"settings": {"recipe": {"epochs": 3.0, "steps": None}, "seed": 8, "mask": "1x8:/w=="}},
        {"settings": {"recipe": {"epochs": 3.5, "steps": None}, "seed": 7, "mask": "1x8:/w=="}},
        {"settings": {"recipe": {"epochs": 3.0, "steps": None}, "seed": 7, "mask": "1x8:/g=="}},
        {"inputs": {"start": "a" * 64, "task": "c" * 64}},
        {"inputs": {"start": "b" * 64, "task": "a" * 64}},
        {"inputs": {"start": "a" * 64, "task": "b" * 64, "teacher": "c" * 64}},
    ],
)
def test_what_decides_the_result_decides_the_key(changes: dict[str, Any]) -> None:
    assert make_request(**changes).key != make_request().key


def test_places_and_sharing_do_not_enter_the_key() -> None:
    moved = make_request(places={"checkpoint": "/elsewhere"}, is_shared=True)
    assert moved.key == make_request().key
    assert "places" not in moved.identity


def test_a_new_version_of_a_stage_has_new_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    raised = STAGE_VERSIONS | {"retrain": STAGE_VERSIONS["retrain"] + 1}
    monkeypatch.setattr(request, "STAGE_VERSIONS", raised)
    assert make_request().key != PINNED
    assert make_request(stage="dense").key != make_request().key


def test_the_seed_follows_from_the_key() -> None:
    assert make_request().seed == 0x673A27D9  # the key begins with e73a27d9; 31 bits of it
    seeds = {make_request(settings={"seed": seed}).seed for seed in range(50)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_request_travels() -> None:
    original = make_request()
    for known in (original, make_request()):
        copy = pickle.loads(pickle.dumps(known))
        assert copy == known
        assert copy.key == original.key
