"""Reading settings from plain values: every problem at once, one line each, names suggested."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from distprune.core.credentials import hide_credentials
from distprune.errors import ConfigError

ModelType = TypeVar("ModelType", bound=BaseModel)


def validate_settings(
    model: type[ModelType], values: Mapping[str, Any], prefix: str = ""
) -> ModelType:
    """Build `model` from `values`.

    Args:
        model: A frozen settings type.
        values: Plain values, as read from a file.
        prefix: Dotted name of the place of `values` in their file, for messages.

    Raises:
        ConfigError: One line per problem: name, value, rule, what to do.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [describe_problem(model, problem, prefix) for problem in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def describe_problem(model: type[BaseModel], problem: Mapping[str, Any], prefix: str = "") -> str:
    """Return one line for one problem that pydantic found."""
    location = [str(part) for part in problem["loc"] if not _is_branch(str(part))]
    name = ".".join([*([prefix] if prefix else []), *location]) or "settings"
    if problem["type"] == "extra_forbidden":
        known = _field_names(model, problem["loc"][:-1])
        return f"{name}: unknown name; {suggest_name(location[-1], known)}"
    if problem["type"] == "missing":
        return f"{name}: missing; give it a value"
    rule = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if isinstance(problem.get("input"), Mapping):
        return f"{name}: {rule}; correct it"
    return f"{name}: {hide_credentials(repr(problem.get('input')))} {rule}; correct it"


def suggest_name(name: str, known: Sequence[str]) -> str:
    """Return advice for a name that is not among `known`."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    return f"known names: {', '.join(sorted(known))}"


def _is_branch(part: str) -> bool:
    """Say whether pydantic added `part` to name the branch of a union that it tried."""
    return part in ("float", "int", "bool", "str", "dict") or part.startswith(
        ("literal[", "constrained-", "function-", "tuple[")
    )


def _field_names(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Return the names that are known at `location` below `model`."""
    current: Any = model
    for part in location:
        if _is_branch(str(part)):
            continue
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            break
        current = field.annotation
        for option in get_args(current):
            kind = get_args(option)[0] if get_origin(option) is Annotated else option
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                current = kind
    return list(getattr(current, "model_fields", {}))
