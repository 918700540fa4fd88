"""Assignments on the command line: `--set NAME=VALUE`, values are YAML."""

from __future__ import annotations

from typing import Any

import pytest

from distprune.cli.options import parse_overrides
from distprune.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("continue", "continue"),
        ("null", None),
        ("[0.2, 0.4]", [0.2, 0.4]),
        ("{uniform: [0.0, 1.0]}", {"uniform": [0.0, 1.0]}),
        ("'3'", "3"),
        ("a=b", "a=b"),
        ("", None),
    ],
)
def test_value_is_yaml(text: str, value: Any) -> None:
    assert parse_overrides([f"some.name={text}"]) == {"some.name": value}


def test_later_assignment_wins_and_storage_is_one() -> None:
    overrides = parse_overrides(["a=1", "b=2", "a=3"], "/data/studies")
    assert overrides == {"a": 3, "b": 2, "storage": "/data/studies"}
    assert parse_overrides(None) == {}


@pytest.mark.parametrize(
    ("assignment", "rule"),
    [
        ("seed", "has no name and value; write NAME=VALUE"),
        ("=3", "has no name and value"),
        ("seed=[1", "'[1' is not YAML; quote the value"),
        ("seed=a: b: c", "is not YAML"),
    ],
)
def test_bad_assignment(assignment: str, rule: str) -> None:
    with pytest.raises(ConfigError, match="--set") as caught:
        parse_overrides([assignment])
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)
