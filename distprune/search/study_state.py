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

FREE_SETTINGS = ("num_trials", "resources", "tracking", "storage", "store")
"""Settings that can change between sessions of a study; they do not decide its numbers."""

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
    if not folder.configuration.exists() or not folder.history.exists():
        # A study without events has nothing that other settings could be mixed with.
        write_file(folder.environment, json.dumps(describe_environment(), indent=2) + "\n")
        write_file(folder.configuration, dump_settings(resolved))
        return read_identifier(folder)
    stored = _read_settings(folder)
    if _deciding(stored) != _deciding(resolved):
        raise StudyExistsError(
            f"study {study.spec.name!r}: exists in {folder.root} with other settings "
            f"({describe_change(_deciding(stored), _deciding(resolved))}); undo the change to go "
            "on with it, choose another name, or start anew with --fresh (the old one is set aside)"
        )
    write_file(folder.configuration, dump_settings(resolved))
    return read_identifier(folder)


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


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in FREE_SETTINGS}


def _read_settings(folder: StudyFolder) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load(folder.configuration.read_text()))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise StorageError(
            f"study {folder.root}: its study.yaml cannot be read ({reason}); start anew with "
            "--fresh (the old one is set aside)"
        ) from error


def _set_aside(folder: StudyFolder) -> None:
    if not folder.root.exists():
        return
    stamp = time.strftime("%Y%m%d-%H%M%S")
    try:
        folder.root.rename(folder.root.with_name(f"{folder.name}.before-{stamp}"))
    except OSError as error:
        raise StorageError(
            f"study {folder.root}: cannot be set aside ({error.strerror}); move it yourself"
        ) from error
