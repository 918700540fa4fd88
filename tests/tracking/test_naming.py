"""Names that MLflow takes."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from distprune.tracking.naming import clean_name, name_level, name_trial


@given(st.text(min_size=1, max_size=400))
def test_clean_names_are_short_and_of_allowed_characters(name: str) -> None:
    cleaned = clean_name(name)
    assert 0 < len(cleaned) <= 250
    assert re.fullmatch(r"[\w\-. :/]+", cleaned)


def test_clean_names_stay_as_they_are() -> None:
    assert clean_name("level/f1 macro-2.5") == "level/f1 macro-2.5"


def test_names_sort_by_number() -> None:
    numbers = [0, 9, 10, 99, 100, 999]
    assert sorted(map(name_trial, numbers)) == [name_trial(number) for number in numbers]
    assert name_level(3) == "level-03"
