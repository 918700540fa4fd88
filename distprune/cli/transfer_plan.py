"""From the command line of `transfer` to what is measured: masks, tasks, settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distprune.cli.downstream import TRAINING_SETTINGS, build_spec, name_task, read_task
from distprune.core.mask import Mask
from distprune.core.selection import ROUNDING
from distprune.errors import ConfigError
from distprune.library.leaderboard import read_leaderboard
from distprune.library.study_folder import StudyFolder, find_study
from distprune.loading import load_mask
from distprune.search.spec import ResourcesSpec
from distprune.search.study_file import Study, load_study
from distprune.search.transfer import NamedMask, Transfer
from distprune.tasks.spec import DEMO_DOMAINS, DEMO_PREFIX, TaskSpec
from distprune.trial.downstream import find_checkpoint, find_rewinding, parse_rewinding
from distprune.trial.spec import TrialSpec
from distprune.trial.validation import validate_settings

DEMO_CHECKPOINT = "demo:minilm"
DEMO_SETTINGS: dict[str, Any] = {
    "task": {"max_length": 48, "train_limit": 1024, "report_size": 0.4},
    "fine_tuning": {"epochs": 2, "learning_rate": 1e-4, "freeze": ["embeddings"]},
    "pruning": {"schedule": {"levels": 3}},
}
"""Settings of `--demo`: those of the quickstart, with more sentences."""

DEFAULT_MILESTONE = 0.5
RESOURCES = "resources."


@dataclass(frozen=True)
class Call:
    """The command line, read.

    Attributes:
        studies, masks, tasks, milestone, model, rewinding, limit: As given.
        is_search: Find a mask on each task first.
        is_demo: Use the demo's checkpoint and settings.
        overrides: Values of `--set` by dotted name.
        num_seeds: Replicates.
    """

    studies: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    milestone: float | None = None
    is_search: bool = False
    is_demo: bool = False
    model: str | None = None
    overrides: Mapping[str, Any] | None = None
    rewinding: str | None = None
    num_seeds: int = 3
    limit: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Values of `--set` that decide the trainings."""
        given = self.overrides or {}
        own = {name: value for name, value in given.items() if not name.startswith(RESOURCES)}
        return own if self.limit is None else {**own, "task.train_limit": self.limit}

    def read_resources(self) -> ResourcesSpec:
        """Return what a stage may use.

        Raises:
            ConfigError: Every problem, one line each.
        """
        given = self.overrides or {}
        own = {
            name.removeprefix(RESOURCES): value
            for name, value in given.items()
            if name.startswith(RESOURCES)
        }
        return validate_settings(ResourcesSpec, own, RESOURCES.rstrip("."))


@dataclass(frozen=True)
class OpenedStudy:
    """A study that gives its best mask.

    Attributes:
        folder: Its folder.
        study: Its settings.
        milestone: The milestone of the mask.
    """

    folder: StudyFolder
    study: Study
    milestone: float


def plan_transfer(call: Call) -> Transfer:
    """Return what to measure; nothing is trained yet.

    Raises:
        InputError: A study, a mask, a task or a setting cannot be used.
    """
    if call.is_search == bool(call.studies or call.masks):
        raise ConfigError(
            "masks: name studies or --masks NAME=FILE, or give --search (or --demo) to find one "
            "on each task; one of the two"
        )
    studies = [open_study(reference, call.milestone) for reference in call.studies]
    files = [load_named(text) for text in call.masks]
    specs = _read_tasks(call, studies, files)
    tasks = {name: spec.task for name, spec in specs.items()}
    masks = (*_name_best(call, studies, tasks), *_name_files(call, files, tasks))
    _check_names([mask.name for mask in masks])
    spec = next(iter(specs.values()))
    return Transfer(spec, tasks, masks, call.num_seeds, _find_milestone(call, studies, spec))


def open_study(reference: str, milestone: float | None) -> OpenedStudy:
    """Open a study that has ended; without a milestone its last one is used.

    Raises:
        ConfigError: There is no such study or milestone.
        StorageError: The study has not ended.
    """
    folder = find_study(reference)
    known = [row.milestone for row in read_leaderboard(folder).rows]
    wanted = known[-1] if milestone is None else milestone
    nearest = min(known, key=lambda other: abs(other - wanted))
    if abs(nearest - wanted) > ROUNDING:
        listed = ", ".join(f"{other:g}" for other in known)
        raise ConfigError(
            f"--milestone: {wanted:g} is none of study {folder.name!r}; it has {listed}"
        )
    return OpenedStudy(folder, load_study(folder.configuration), nearest)


def load_named(text: str) -> tuple[str, Mask]:
    """Return name and mask of `NAME=FILE`.

    Raises:
        ConfigError: It has no name.
        MaskError: The file is no mask.
    """
    name, sign, reference = text.partition("=")
    if not (sign and name and reference):
        raise ConfigError(f"--masks {text!r}: has no name and file; write NAME=FILE")
    return name, load_mask(reference)


def _read_tasks(
    call: Call, studies: Sequence[OpenedStudy], files: Sequence[tuple[str, Mask]]
) -> dict[str, TrialSpec]:
    """Return the settings of the trainings on each task; they differ in the task alone."""
    base = _find_base(call, studies)
    checkpoint = _choose_checkpoint(call, base, files)
    allowed = (*TRAINING_SETTINGS, *(("pruning",) if call.is_search else ()))
    specs: dict[str, TrialSpec] = {}
    for text in call.tasks or [DEMO_PREFIX + domain for domain in DEMO_DOMAINS]:
        name, task = name_task(text), read_task(text)
        if name in specs:
            raise ConfigError(f"--tasks: {name!r} names two of them; rename one of the files")
        if text.startswith(DEMO_PREFIX):
            task = {**base["task"], **task}
        specs[name] = build_spec(checkpoint, task, call.settings, base, allowed)
    return specs


def _find_base(call: Call, studies: Sequence[OpenedStudy]) -> dict[str, Any]:
    """Return the settings to start from: of the first study, of the demo, or the defaults."""
    base: dict[str, Any] = DEMO_SETTINGS if call.is_demo else {}
    if studies:
        base = studies[0].study.base.model_dump(mode="json")
    task = base.get("task", {})
    # What a study says of its data means nothing elsewhere, unless it is a demo domain too.
    is_demo = str(task.get("dataset", DEMO_PREFIX)).startswith(DEMO_PREFIX)
    pruning = {**base.get("pruning", {}), **_find_pruning(call)} if call.is_search else {}
    return {**base, "task": task if is_demo else {}, "pruning": pruning}


def _find_pruning(call: Call) -> dict[str, Any]:
    pruning: dict[str, Any] = {"target_sparsity": call.milestone or DEFAULT_MILESTONE}
    if call.rewinding is not None:
        point = parse_rewinding(call.rewinding)
        pruning["rewinding"] = call.rewinding if call.rewinding == "continue" else point
    return pruning


def _choose_checkpoint(
    call: Call, base: Mapping[str, Any], files: Sequence[tuple[str, Mask]]
) -> str:
    origins = [origin for _, mask in files if (origin := find_checkpoint(mask))]
    demo = DEMO_CHECKPOINT if call.is_demo else None
    named = call.model or demo or base.get("checkpoint") or (origins[0] if origins else None)
    if named is None:
        raise ConfigError("--model: nothing says which checkpoint to train; name it")
    return str(named)


def _name_best(
    call: Call, studies: Sequence[OpenedStudy], tasks: Mapping[str, TaskSpec]
) -> Iterator[NamedMask]:
    for opened in studies:
        mask = Mask.load(opened.folder.mask(opened.milestone))
        own = opened.study.base
        home = _find_home(own.task.dataset, tasks)
        found_with = mask.metadata.get("rewinding", own.pruning.rewinding)
        point = parse_rewinding(found_with if call.rewinding is None else call.rewinding)
        yield NamedMask(opened.folder.name, mask, home, point)


def _name_files(
    call: Call, files: Sequence[tuple[str, Mask]], tasks: Mapping[str, TaskSpec]
) -> Iterator[NamedMask]:
    for name, mask in files:
        origin = mask.metadata.get("task")
        dataset = origin.get("dataset") if isinstance(origin, dict) else None
        home = name if name in tasks else _find_home(dataset, tasks)
        point = find_rewinding(mask) if call.rewinding is None else parse_rewinding(call.rewinding)
        yield NamedMask(name, mask, home, point)


def _find_home(dataset: Any, tasks: Mapping[str, TaskSpec]) -> str | None:
    return next((name for name, task in tasks.items() if task.dataset == dataset), None)


def _find_milestone(call: Call, studies: Sequence[OpenedStudy], spec: TrialSpec) -> float | None:
    if call.is_search:
        return spec.pruning.target_sparsity
    used = {opened.milestone for opened in studies}
    return used.pop() if len(used) == 1 and not call.masks else None


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"masks: {twice[0]!r} names two of them; give each a name of its own with "
            "--masks NAME=FILE"
        )
