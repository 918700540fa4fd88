"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
import yaml

from distprune.errors import ConfigError

FileArgument = typer.Argument(help="Study file (YAML).", show_default=False)
SetOption = typer.Option(
    None,
    "--set",
    metavar="NAME=VALUE",
    help="Replace a value of the file by dotted name, for instance "
    "--set trial.pruning.target_sparsity=0.3. Can be given several times.",
    show_default=False,
)
StorageOption = typer.Option(
    None, "--storage", help="Folder or URI of studies; replaces `storage` of the file."
)
AddressOption = typer.Option(
    None, "--address", help="Address of a Ray cluster; without it Ray is started here."
)
SearchAddressOption = typer.Option(
    None,
    "--address",
    help="Ray cluster to run on: auto or HOST:6379 on one of its machines; http://HOST:8265 hands "
    "the study in as a job, from anywhere. Without it Ray is started here.",
)
ShipCodeOption = typer.Option(
    False,
    "--ship-code",
    help="Send this installation of distprune to the workers of the cluster.",
)
StudyArgument = typer.Argument(
    help="Folder or URI of the study, as in studies/quickstart.", show_default=False
)
JsonOption = typer.Option(False, "--json", help="Print JSON for programs.")
VerboseOption = typer.Option(
    False, "--verbose", help="Let Ray's, Optuna's and transformers' own output through."
)


def is_job_address(address: str | None) -> bool:
    """Say whether an address is that of a job server rather than of a cluster to join."""
    return address is not None and address.lower().startswith(("http://", "https://"))


def parse_overrides(
    assignments: Sequence[str] | None, storage: str | None = None, prefix: str = ""
) -> dict[str, Any]:
    """Return `NAME=VALUE` assignments as values by dotted name; values are YAML.

    Raises:
        ConfigError: One has no `=`, or a value is no YAML.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments or []:
        name, sign, text = assignment.partition("=")
        if not sign or not name:
            raise ConfigError(f"--set {assignment!r}: has no name and value; write NAME=VALUE")
        try:
            overrides[prefix + name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {name}: {text!r} is not YAML; quote the value") from error
    if storage is not None:
        overrides["storage"] = storage
    return overrides
