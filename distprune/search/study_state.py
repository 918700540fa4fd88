"""A study on disk: made once, found again, and never mixed with another configuration."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import yaml

from distprune.core.atomic_file import write_file
from distprune.errors import StorageError, StudyExistsError
from distprune.library.study_folder import StudyFolder, read_identifier
from distprune.search.space import set_values
from distprune.search.study_file import Study
from distprune.trial.context import TrialContext

FREE_SETTINGS = {
    "num_trials": "how many trials there are in all",
    "resources": "what the study may use, not what it finds",
    "tracking": "where and how runs are tracked from now on; what was sent before stays as it is",
    "storage": "where the study lies",
    "store": "how large the store may grow",
}
"""Settings that can change between sessions of a study, and what they decide: none of its numbers,
but the last bits where stages get other cores."""

DECIDING_SETTINGS = {
    "trial.checkpoint": "its trials are compared with one dense model",
    "trial.task": "its trials are compared on the same data",
    "trial.fine_tuning": "its trials are compared with one dense model",
    "trial.precision": "its trials are compared with one dense model",
    "trial.seed": "its trials are compared with one dense model",
    "trial.pruning.target_sparsity": "its trials are compared at the same sparsities",
    "milestones": "its trials are compared at the same sparsities",
    "objective": "its trials are rated alike",
    "stopping": "its trials were stopped by one rule",
    "seed": "its trials were proposed by one sampler",
    "sampler": "its trials were proposed by one sampler",
    "start_with": "its trials were proposed by one sampler",
    "trial": "its trials were drawn from one search space",
}
"""Why settings cannot change in a study that has begun; the first name that fits says it."""

OTHERWISE = "its trials are compared with each other"

PACKAGES = ("distprune", "ray", "optuna", "torch", "transformers", "datasets", "mlflow", "numpy")


def open_study(study: Study, folder: StudyFolder, fresh: bool) -> str:
    """Make the study's folder, or find that it holds the same study.

    Args:
        study: The study as its file says.
        folder: Where it is kept.
        fresh: Set an existing study of the name aside and start anew.

    Returns:
        The study's identifier, which no other study has.

    Raises:
        StudyExistsError: The folder holds a study with other settings.
        StorageError: It cannot be read or written.
    """
    if fresh:
        _set_aside(folder)
    resolved = resolve_settings(study)
    if not _has_begun(folder):
        # A study without events has nothing that other settings could be mixed with.
        write_file(folder.environment, json.dumps(describe_environment(), indent=2) + "\n")
        write_file(folder.configuration, dump_settings(resolved))
        return read_identifier(folder)
    stored = _read_settings(folder)
    if _deciding(stored) != _deciding(resolved):
        changes = list(_compare(_deciding(stored), _deciding(resolved), ""))
        raise StudyExistsError(
            f"study {study.spec.name!r}: exists in {folder.reference} with other settings "
            f"({describe_change(_deciding(stored), _deciding(resolved))}), and "
            f"{_explain_change(changes)}; undo the change to go on with it, choose another name "
            "(what is in the store already is not computed again), or start anew with --fresh (the "
            "old one is set aside)"
        )
    write_file(folder.configuration, dump_settings(resolved))
    return read_identifier(folder)


def describe_continuation(study: Study, folder: StudyFolder) -> tuple[str, ...]:
    """Return a line for each setting that changed since the last session and may do so.

    Raises:
        StorageError: What the study was cannot be read.
    """
    if not _has_begun(folder):
        return ()
    stored, resolved = _read_settings(folder), resolve_settings(study)
    return tuple(
        f"{change}; it decides {meaning}"
        for name, meaning in FREE_SETTINGS.items()
        for change in _compare({name: stored.get(name)}, {name: resolved[name]}, "")
        if ": unset is now " not in change  # a setting that an older version did not have
    )


def pin_inputs(folder: StudyFolder, context: TrialContext) -> None:
    """Write down what the study's names stood for, or check that they still stand for the same.

    Raises:
        StudyExistsError: Checkpoint, data or arithmetic are not what the study began with.
    """
    inputs = {
        "checkpoint": context.checkpoint.fingerprint,
        "data": context.task.source_fingerprint,
        "precision": context.precision,
    }
    environment = json.loads(folder.environment.read_text())
    pinned = environment.setdefault("inputs", inputs)
    changed = [name for name, value in inputs.items() if pinned.get(name) != value]
    if changed and folder.history.exists():
        raise StudyExistsError(
            f"study {folder.name!r}: {' and '.join(changed)} changed since it began, so its trials "
            "would not be comparable; restore what it was, choose another name, or start anew "
            "with --fresh (the old one is set aside)"
        )
    write_file(folder.environment, json.dumps(environment | {"inputs": inputs}, indent=2) + "\n")


def resolve_settings(study: Study) -> dict[str, Any]:
    """Return all settings of the study, defaults filled in, ranges as written."""
    settings: dict[str, Any] = study.spec.model_dump(mode="json")
    ranges = {p.name: {str(p.kind): list(p.values)} for p in study.parameters}
    settings["trial"] = set_values(study.base.model_dump(mode="json"), ranges)
    settings["milestones"] = list(study.milestones)
    return settings


def dump_settings(settings: dict[str, Any]) -> str:
    """Return settings as YAML in the order of the schema."""
    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def describe_change(stored: dict[str, Any], given: dict[str, Any]) -> str:
    """Return the first few settings that differ, by dotted name."""
    changes = list(_compare(stored, given, ""))
    return ", ".join(changes[:4]) + (" ..." if len(changes) > 4 else "")


def describe_environment() -> dict[str, Any]:
    """Return versions and machine, and a new identifier."""
    return {
        "study_id": uuid.uuid4().hex,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _compare(stored: Any, given: Any, name: str) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in {**stored, **given}:
            below = f"{name}.{key}" if name else str(key)
            yield from _compare(stored.get(key, "unset"), given.get(key, "unset"), below)
    elif stored != given:
        yield f"{name}: {stored} is now {given}"


def _has_begun(folder: StudyFolder) -> bool:
    return folder.configuration.exists() and folder.history.exists()


def _explain_change(changes: list[str]) -> str:
    """Say why settings that changed cannot, each reason once."""
    reasons = [
        next((why for name, why in DECIDING_SETTINGS.items() if _is_below(change, name)), OTHERWISE)
        for change in changes
    ]
    return " and ".join(dict.fromkeys(reasons))


def _is_below(change: str, name: str) -> bool:
    """Say whether a change, as in `trial.seed: 0 is now 1`, is of a setting or of one below it."""
    return change.startswith((f"{name}:", f"{name}."))


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in FREE_SETTINGS}


def _read_settings(folder: StudyFolder) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load(folder.configuration.read_text()))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise StorageError(
            f"study {folder.reference}: its study.yaml cannot be read ({reason}); start anew with "
            "--fresh (the old one is set aside)"
        ) from error


def _set_aside(folder: StudyFolder) -> None:
    if not folder.root.exists():
        return
    folder.set_aside(f"{folder.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
