"""Ranges in a tree of settings: found, filled with values, replaced by values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.errors import ConfigError
from distprune.search.space import Parameter, RangeKind, fill, find_parameters, set_values

RANGE = {"uniform": [0.0, 1.0]}
TREE = {
    "seed": 3,
    "deep": {"rate": {"log_uniform": [1e-5, 1e-3]}, "levels": {"int": [2, 7]}, "kept": "x"},
    "shape": {"choice": ["a", ["b", "c"], None]},
}


def test_parameters_are_found_in_the_order_of_the_file() -> None:
    assert find_parameters(TREE) == (
        Parameter("deep.rate", RangeKind.LOG_UNIFORM, (1e-5, 1e-3)),
        Parameter("deep.levels", RangeKind.INT, (2, 7)),
        Parameter("shape", RangeKind.CHOICE, ("a", ["b", "c"], None)),
    )


def test_fill_puts_values_in_place_and_leaves_out_what_has_none() -> None:
    filled = fill(TREE, {"deep.rate": 1e-4, "shape": None})
    assert filled == {"seed": 3, "deep": {"rate": 1e-4, "kept": "x"}, "shape": None}
    assert find_parameters(filled) == ()


def test_setting_named_like_a_range_word_among_others_is_no_range() -> None:
    assert find_parameters({"a": {"int": [1, 2], "other": 3}}) == ()


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"uniform": [1.0, 0.0]}, "uniform [1.0, 0.0] is upside down; put the lower end first"),
        ({"int": [5, 5]}, "int [5, 5] is upside down"),
        ({"choice": []}, "choice []; it takes a list"),
        ({"choice": "convex"}, "choice 'convex'; it takes a list"),
        ({"uniform": 0.5}, "uniform 0.5; it takes a list; write uniform: [a, b]"),
        ({"uniform": [0.5]}, "uniform [0.5] takes two finite numbers"),
        ({"uniform": [0, 1, 2]}, "takes two finite numbers; write uniform: [low, high]"),
        ({"uniform": [False, True]}, "takes two finite numbers"),
        ({"uniform": [0.0, float("nan")]}, "takes two finite numbers"),
        ({"uniform": [0.0, float("inf")]}, "takes two finite numbers"),
        ({"int": [1.0, 2.0]}, "int [1.0, 2.0] takes two finite whole numbers"),
        ({"log_uniform": [0.0, 1.0]}, "must be above 0; raise the lower end"),
        ({"unifrom": [0, 1]}, "unifrom [0, 1] is no range; did you mean 'uniform'?"),
        ({"choices": [0, 1]}, "choices [0, 1] is no range; did you mean 'choice'?"),
    ],
)
def test_bad_range_is_one_line(given: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_parameters({"a": {"b": given}})
    assert str(caught.value).startswith("trial.a.b: ")
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_bad_ranges_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        find_parameters({"a": {"int": [2, 1]}, "b": RANGE, "c": {"choice": []}})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["trial.a", "trial.c"]


NAMES = st.text("abc", min_size=1, max_size=2)
TREES = st.recursive(
    st.one_of(st.integers(), st.just(RANGE)),
    lambda children: st.dictionaries(NAMES, children, max_size=3),
).map(lambda tree: tree if isinstance(tree, dict) and tree != RANGE else {"a": tree})


@given(TREES)
def test_values_of_all_parameters_make_a_tree_without_ranges(tree: dict[str, Any]) -> None:
    before = repr(tree)
    names = [parameter.name for parameter in find_parameters(tree)]
    filled = fill(tree, dict.fromkeys(names, 0.5))
    assert find_parameters(filled) == ()
    assert filled == set_values(tree, dict.fromkeys(names, 0.5))
    assert repr(tree) == before


def test_set_values_replaces_a_range_and_adds_what_is_missing() -> None:
    changed = set_values(TREE, {"shape": "b", "deep.rate.uniform": [0, 1], "new.deep": 1})
    assert changed["shape"] == "b"
    assert changed["deep"] == {"rate": RANGE | {"uniform": [0, 1]}, **without_rate()}
    assert changed["new"] == {"deep": 1}
    assert TREE["shape"] == {"choice": ["a", ["b", "c"], None]}


def without_rate() -> dict[str, Any]:
    return {"levels": {"int": [2, 7]}, "kept": "x"}
