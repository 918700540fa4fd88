"""Study files: YAML to a checked study. Every value that a range can give is checked beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any

import yaml

from distprune.core.schedule import default_milestones
from distprune.errors import ConfigError
from distprune.search.problems import Problems
from distprune.search.space import Parameter, RangeKind, fill, find_parameters, set_values
from distprune.search.spec import StudySpec
from distprune.trial.spec import TrialSpec
from distprune.trial.validation import suggest_name, validate_settings

FIXED = (
    "checkpoint",
    "task",
    "fine_tuning",
    "precision",
    "seed",
    "pruning.method",
    "pruning.units",
    "pruning.target_sparsity",
    "pruning.selection.allocation",
)
"""Settings that make trials comparable, so that they cannot be ranges."""


@dataclass(frozen=True)
class Study:
    """A checked study file.

    Attributes:
        spec: Its settings.
        parameters: The searched settings, in the order of the file.
        base: The trial in which every range takes its first value.
        milestones: Sparsities at which trials are compared, increasing.
    """

    spec: StudySpec
    parameters: tuple[Parameter, ...]
    base: TrialSpec
    milestones: tuple[float, ...]

    def make_trial(self, values: Mapping[str, Any]) -> TrialSpec:
        """Return the trial with `values` for the searched settings, by dotted name.

        Raises:
            ConfigError: The values do not go together.
        """
        return validate_settings(TrialSpec, fill(self.spec.trial, values), "trial")

    def pairs_of_probes(self) -> Iterator[dict[str, Any]]:
        """Yield values of all parameters, any two of them probed: a shape and its levels."""
        first = {parameter.name: parameter.values[0] for parameter in self.parameters}
        for one, other in combinations_with_replacement(self.parameters, 2):
            for probe, second in product(one.probes, other.probes):
                yield {**first, one.name: probe, other.name: second}

    @property
    def rewinding_points(self) -> tuple[float, ...]:
        """Fractions of the dense fine-tuning that any trial can rewind to."""
        rewinding = [p.values for p in self.parameters if p.name == "pruning.rewinding"]
        values = rewinding[0] if rewinding else (self.base.pruning.rewinding,)
        return tuple(sorted({float(value) for value in values if value != "continue"}))


def load_study(path: Path, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read and check a study file.

    Args:
        path: The YAML file.
        overrides: Values by dotted name that replace those of the file.

    Raises:
        ConfigError: Every problem, one line each.
    """
    overrides = overrides or {}
    values = set_values(read_yaml(path), overrides)
    return check_study(_without_start(values, overrides))


def _without_start(values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of `start_with` what an override has given one value, and what that empties."""
    start = values.get("start_with")
    if not isinstance(start, list) or not all(isinstance(entry, dict) for entry in start):
        return values
    fixed = {name for name, value in overrides.items() if not isinstance(value, Mapping)}
    kept = [
        (entry, {name: value for name, value in entry.items() if f"trial.{name}" not in fixed})
        for entry in start
    ]
    return {**values, "start_with": [left for entry, left in kept if left or not entry]}


def check_study(values: Mapping[str, Any]) -> Study:
    """Check the values of a study file, and every trial that its ranges can give.

    Raises:
        ConfigError: Every problem, one line each.
    """
    problems = Problems()
    spec = problems.collect(lambda: validate_settings(StudySpec, values))
    parameters, base = _check_trial(values.get("trial"), problems)
    if spec is not None and parameters is not None:
        for problem in _check_start(spec.start_with, parameters):
            problems.add(problem)
    milestones = None
    if spec is not None and base is not None:
        milestones = problems.collect(lambda: _resolve_milestones(spec, base))
    if problems.lines or not (spec and parameters is not None and base and milestones):
        raise problems.error()
    return Study(spec, parameters, base, milestones)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: It is missing, empty, no YAML or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"file {path}: cannot be read ({reason}); correct the path") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "syntax error"
        raise ConfigError(f"file {path}: not YAML{place} ({problem}); correct it") from error
    if values is None:
        raise ConfigError(f"file {path}: empty; see search_spaces/quickstart.yaml for an example")
    if not isinstance(values, dict):
        raise ConfigError(f"file {path}: holds a {type(values).__name__}; it takes `name: value`")
    return values


def _check_trial(
    tree: Any, problems: Problems
) -> tuple[tuple[Parameter, ...] | None, TrialSpec | None]:
    """Check a trial's settings and ranges; return ranges and first trial where they are usable."""
    if not isinstance(tree, Mapping):
        return None, None
    parameters = problems.collect(lambda: find_parameters(tree))
    first = {parameter.name: parameter.values[0] for parameter in parameters or ()}
    base = _try_trial(tree, first, problems)
    for parameter in parameters or ():
        for probe in parameter.probes[1:]:
            _try_trial(tree, {**first, parameter.name: probe}, problems)
    unfit = list(_check_fixed(parameters or ()))
    for problem in unfit:
        problems.add(problem)
    return parameters, None if unfit else base


def _check_fixed(parameters: Sequence[Parameter]) -> Iterator[str]:
    for parameter in parameters:
        if any(_overlap(parameter.name, name) for name in FIXED):
            yield (
                f"{_full_name(parameter)}: a range; all trials of a study must share it to be "
                "comparable; give it one value"
            )
        elif parameter.name == "pruning.rewinding" and parameter.kind is not RangeKind.CHOICE:
            yield (
                f"trial.pruning.rewinding: {parameter.kind} range; each point is saved in the "
                "dense run; use choice: [0.0, 0.5, continue]"
            )


def _overlap(one: str, other: str) -> bool:
    """Say whether one of two dotted names is, or holds, the other; the empty name holds all."""
    pairs = zip(one.split(".") if one else (), other.split("."), strict=False)
    return all(a == b for a, b in pairs)


def _full_name(parameter: Parameter) -> str:
    return f"trial.{parameter.name}" if parameter.name else "trial"


def _try_trial(
    tree: Mapping[str, Any], values: Mapping[str, Any], problems: Problems
) -> TrialSpec | None:
    return problems.collect(lambda: validate_settings(TrialSpec, fill(tree, values), "trial"))


def _check_start(
    start_with: Sequence[Mapping[str, Any]], parameters: Sequence[Parameter]
) -> list[str]:
    by_name = {parameter.name: parameter for parameter in parameters}
    problems = []
    for index, values in enumerate(start_with):
        for name, value in values.items():
            parameter = by_name.get(name)
            if parameter is None:
                advice = suggest_name(name, list(by_name))
                problems.append(f"start_with.{index}.{name}: not a searched setting; {advice}")
            elif not _is_within(value, parameter):
                problems.append(
                    f"start_with.{index}.{name}: {value!r} is outside "
                    f"{parameter.kind}: {list(parameter.values)}; choose a value in the range"
                )
    return problems


def _is_within(value: Any, parameter: Parameter) -> bool:
    if parameter.kind is RangeKind.CHOICE:
        return value in parameter.values
    low, high = parameter.values
    kinds = int if parameter.kind is RangeKind.INT else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high


def _resolve_milestones(spec: StudySpec, base: TrialSpec) -> tuple[float, ...]:
    target = base.pruning.target_sparsity
    if isinstance(spec.milestones, int):
        return default_milestones(target, spec.milestones)
    if spec.milestones[-1] != target:
        raise ConfigError(
            f"milestones: the last is {spec.milestones[-1]:g}; it must be the target sparsity "
            f"{target:g} (trial.pruning.target_sparsity); change one of them"
        )
    return spec.milestones
