"""`distprune register`: the best masks of a study as versions of a registered model in MLflow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from distprune.cli.options import JsonOption, StudyArgument
from distprune.cli.tracked_study import locate_tracking, read_server
from distprune.core.selection import ROUNDING
from distprune.errors import ConfigError
from distprune.library.leaderboard import Leaderboard, read_leaderboard
from distprune.library.study_folder import StudyFolder, find_study, read_identifier

if TYPE_CHECKING:
    from distprune.tracking.registry import MaskFiles, RegisteredMask, Registry

EXAMPLES = (
    "distprune register studies/quickstart",
    "distprune register studies/quickstart --milestone 0.5 --with-model ./small",
    "distprune register studies/quickstart --tracking-uri http://127.0.0.1:5000",
)
"""Calls that `--help` shows."""


def register(
    study: str = StudyArgument,
    milestones: list[float] = typer.Option(
        None,
        "--milestone",
        help="Register the best mask at this sparsity only. Can be given several times.",
        show_default=False,
    ),
    model_name: str = typer.Option(
        None, "--model-name", help="Name of the registered model; default: that of the study."
    ),
    tracking_uri: str = typer.Option(
        None,
        "--tracking-uri",
        help="http(s)://... or sqlite:///PATH; default: where the study is tracked.",
        show_default=False,
    ),
    model: Path = typer.Option(
        None,
        "--with-model",
        help="Folder of a compact model of the mask, to be served by `mlflow models serve`.",
    ),
    as_json: bool = JsonOption,
) -> None:
    """Register a study's best masks in MLflow. Repeating it changes nothing."""
    from distprune.cli.terminal import silence_libraries
    from distprune.tracking.registry import Registry, register_mask

    folder = find_study(study)
    leaderboard = read_leaderboard(folder)
    best = choose_masks(folder, leaderboard, milestones or [], model)
    uri, artifacts = locate_registry(folder, tracking_uri)
    registry = Registry(
        uri=uri,
        artifact_location=artifacts,
        model_name=model_name or folder.name,
        study_name=folder.name,
        study_id=read_identifier(folder),
    )
    silence_libraries()
    registered = [register_mask(registry, mask) for mask in best]
    if as_json:
        typer.echo(json.dumps([describe_registered(mask) for mask in registered], indent=2))
        return
    typer.echo("\n".join(list_registered(registry, registered)))


def choose_masks(
    folder: StudyFolder, leaderboard: Leaderboard, milestones: Sequence[float], model: Path | None
) -> list[MaskFiles]:
    """Return the masks to register.

    Raises:
        ConfigError: A milestone is none of the study's, or a model's mask is not clear.
    """
    from distprune.tracking.registry import MaskFiles

    known = [row.milestone for row in leaderboard.rows]
    for milestone in milestones:
        if not any(abs(milestone - other) < ROUNDING for other in known):
            listed = ", ".join(f"{other:g}" for other in known)
            raise ConfigError(
                f"--milestone: {milestone:g} is none of study {folder.name!r}; it has {listed}"
            )
    chosen = [
        milestone
        for milestone in known
        if not milestones or any(abs(milestone - other) < ROUNDING for other in milestones)
    ]
    if model is not None and len(chosen) != 1:
        raise ConfigError(
            "--with-model: a model is of one mask; name its milestone with --milestone"
        )
    return [
        MaskFiles(milestone, folder.mask(milestone), folder.evidence(milestone), model)
        for milestone in chosen
    ]


def locate_registry(folder: StudyFolder, given: str | None) -> tuple[str, str | None]:
    """Return the tracking store, and where a new experiment keeps its artifacts."""
    if given is not None:
        if not given.startswith(("http://", "https://", "sqlite:///")):
            raise ConfigError(
                f"--tracking-uri: {given!r} must begin with http://, https:// or sqlite:///"
            )
        database = given.removeprefix("sqlite:///")
        beside = str(Path(database).absolute().with_name("mlflow-artifacts"))
        return given, beside if database != given else None
    return locate_tracking(folder, read_server(folder))


def describe_registered(mask: RegisteredMask) -> dict[str, Any]:
    """Return a registered mask for programs."""
    return {**asdict(mask), "uri": mask.uri}


def list_registered(registry: Registry, masks: Sequence[RegisteredMask]) -> list[str]:
    """Return a line a mask, and how to use them."""
    from distprune.core.credentials import hide_credentials

    lines = [
        f"{mask.uri}  version {mask.version}, {'new' if mask.is_new else 'as before'}"
        f"{', with its model' if mask.has_model else ''}"
        for mask in masks
    ]
    address = hide_credentials(registry.uri)
    lines.append(f"Tracking store  export MLFLOW_TRACKING_URI={address}")
    served = [mask for mask in masks if mask.has_model]
    if served:
        lines.append(
            f"Serve           mlflow models serve --env-manager local -m {served[-1].uri} -p 5001"
        )
    return lines
