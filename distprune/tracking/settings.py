"""The parameters of runs: what a trial searched and what it fixed; what all trials share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from distprune.tracking.naming import clean_name
from distprune.trial.spec import TrialSpec

MAX_VALUE_LENGTH = 500
"""Longest value that every MLflow server takes."""

SHARED = ("checkpoint", "task", "fine_tuning", "precision")
"""Top settings that are the same for all trials of a study; they are shown on the study's run."""


def list_shared_parameters(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return by dotted name what all trials of a study share, given the settings of one."""
    shared = {name: value for name, value in spec.items() if name in SHARED}
    return _fit(dict(_flatten(shared, "")))


def list_trial_parameters(spec: Mapping[str, Any], searched: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a trial by dotted name, as text that fits MLflow's limits.

    Args:
        spec: The whole trial specification, nested; what has no effect, is empty or is shared by
            all trials is left out.
        searched: The searched values by dotted name; they overrule `spec`.
    """
    own = {name: value for name, value in spec.items() if name not in SHARED}
    without_effect = TrialSpec.model_validate(spec).inactive_settings()
    values = {name: text for name, text in _flatten(own, "") if name not in without_effect}
    values.update({name: _to_text(value) for name, value in searched.items()})
    return _fit(values)


def _flatten(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif value is not None and value not in ([], ()):
            yield f"{prefix}{name}", _to_text(value)


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _fit(values: Mapping[str, str]) -> dict[str, str]:
    return {clean_name(name): text[:MAX_VALUE_LENGTH] for name, text in values.items() if text}
