"""The search space: ranges anywhere in a trial's settings, and a trial's values in their place."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from distprune.errors import ConfigError


class RangeKind(StrEnum):
    """How a value is drawn; the word that marks a range in a study file."""

    UNIFORM = "uniform"
    LOG_UNIFORM = "log_uniform"
    INT = "int"
    CHOICE = "choice"


@dataclass(frozen=True)
class Parameter:
    """One searched setting.

    Attributes:
        name: Dotted name below `trial`.
        kind: How its value is drawn.
        values: Lowest and highest value, both included, or the choices.
    """

    name: str
    kind: RangeKind
    values: tuple[Any, ...]

    @property
    def probes(self) -> tuple[Any, ...]:
        """Values whose validity makes the whole range valid: the ends, or every choice."""
        return self.values


Tree = Mapping[str, Any]


def find_parameters(tree: Tree) -> tuple[Parameter, ...]:
    """Return the ranges in a trial's settings, in the order of the file.

    Raises:
        ConfigError: Ranges are not two numbers in order, or a choice of nothing; one line each.
    """
    parameters, problems = [], []
    for name, word, given in _walk(tree, ()):
        try:
            parameters.append(_make_parameter(name, word, given))
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return tuple(parameters)


def fill(tree: Tree, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with `values` in the place of ranges, by dotted name."""
    filled: dict[str, Any] = _fill(tree, values, ())
    return filled


def set_values(tree: Tree, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with `values` set by dotted name, in ranges' place or anew."""
    changed = dict(tree)
    for name, value in values.items():
        _set_value(changed, name.split("."), value)
    return changed


def _set_value(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Set one value in `tree`, in place, copying what it shares."""
    head, *rest = path
    if not rest:
        tree[head] = value
        return
    child = tree.get(head)
    tree[head] = dict(child) if isinstance(child, Mapping) and not _range_kind(child) else {}
    _set_value(tree[head], rest, value)


def _walk(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str, Any]]:
    if not isinstance(node, Mapping):
        return
    word = _range_word(node)
    if word is not None:
        yield ".".join(path), word, node[word]
        return
    for key, child in node.items():
        yield from _walk(child, (*path, str(key)))


def _fill(node: Any, values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    if not isinstance(node, Mapping):
        return node
    name = ".".join(path)
    if _range_kind(node) is None:
        filled = {key: _fill(child, values, (*path, str(key))) for key, child in node.items()}
        return {key: child for key, child in filled.items() if child is not _UNSET}
    return values.get(name, _UNSET)


_UNSET = object()
"""Marks a range that takes no value in this trial; the setting keeps its default."""


def _range_kind(node: Mapping[str, Any]) -> RangeKind | None:
    if len(node) != 1:
        return None
    word = next(iter(node))
    return RangeKind(word) if word in list(RangeKind) else None


def _range_word(node: Mapping[str, Any]) -> str | None:
    """Return the word of a range, or one that comes near: no setting has such a name."""
    word = str(next(iter(node), ""))
    is_list = len(node) == 1 and isinstance(next(iter(node.values())), list)
    is_near = is_list and difflib.get_close_matches(word, list(RangeKind), n=1, cutoff=0.75)
    return word if is_near else _range_kind(node)


def _make_parameter(name: str, word: str, given: Any) -> Parameter:
    if word not in list(RangeKind):
        nearest = difflib.get_close_matches(word, list(RangeKind), n=1)[0]
        raise ConfigError(
            f"trial.{name}: {word} {given!r} is no range; did you mean {str(nearest)!r}?"
        )
    kind = RangeKind(word)
    if not isinstance(given, list) or not given:
        raise ConfigError(f"trial.{name}: {kind} {given!r}; it takes a list; write {kind}: [a, b]")
    if kind is RangeKind.CHOICE:
        return Parameter(name, kind, tuple(given))
    is_pair = len(given) == 2 and all(_is_number(value, kind) for value in given)
    if not is_pair:
        raise ConfigError(
            f"trial.{name}: {kind} {given!r} takes two finite "
            f"{'whole numbers' if kind is RangeKind.INT else 'numbers'}; write {kind}: [low, high]"
        )
    low, high = given
    if low >= high:
        raise ConfigError(f"trial.{name}: {kind} {given!r} is upside down; put the lower end first")
    if kind is RangeKind.LOG_UNIFORM and low <= 0:
        raise ConfigError(
            f"trial.{name}: log_uniform {given!r} must be above 0; raise the lower end"
        )
    return Parameter(name, kind, (low, high))


def _is_number(value: Any, kind: RangeKind) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) if kind is RangeKind.INT else math.isfinite(value)
