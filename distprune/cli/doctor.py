"""`distprune doctor`: find out on every node whether a study would run, before GPU hours."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from distprune.cli.options import (
    AddressOption,
    FileArgument,
    JsonOption,
    SetOption,
    ShipCodeOption,
    StorageOption,
    VerboseOption,
    is_job_address,
    parse_overrides,
)
from distprune.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distprune.search.findings import Finding
    from distprune.search.study_file import Study

EXAMPLES = (
    "distprune doctor study.yaml",
    "distprune doctor study.yaml --address auto",
    "distprune doctor study.yaml --address 10.0.0.5:6379 --json",
)
"""Calls that `--help` shows."""

EXIT_ILL = 1


def doctor(
    file: Path = FileArgument,
    assignments: list[str] = SetOption,
    storage: str = StorageOption,
    address: str = AddressOption,
    ship_code: bool = ShipCodeOption,
    as_json: bool = JsonOption,
    verbose: bool = VerboseOption,
) -> None:
    """Find out on every node of a cluster whether a study would run; exits with 1 if it would not.

    Versions, token, storage, tracking server, checkpoint, data, disks, memory, clocks and leases
    are looked at. No stage is run.
    """
    from rich.console import Console

    from distprune.cli.terminal import silence_libraries
    from distprune.search.doctor import DoctorRequest, examine
    from distprune.search.findings import has_failure
    from distprune.search.study import study_folder
    from distprune.search.study_file import load_study

    if is_job_address(address):
        raise ConfigError(
            f"--address: {address!r} takes jobs; the doctor has to run on a node: ray job submit "
            f"--address {address} --working-dir . -- python -m distprune doctor {file} --address "
            "auto"
        )
    study = load_study(file, parse_overrides(assignments, storage))
    if not verbose:
        silence_libraries()
    request = DoctorRequest(study, study_folder(study), address, ship_code, verbose)
    console = Console(stderr=True)
    with console.status("Examining") as status:
        findings = [*examine(request, lambda text: status.update(text))]
        status.update("Asking the tracking server")
        findings.append(examine_tracking(study, address))
    is_ill = has_failure(findings)
    if as_json:
        typer.echo(
            json.dumps({"ok": not is_ill, "findings": list(map(asdict, findings))}, indent=2)
        )
    else:
        typer.echo(format_findings(findings))
        typer.echo(summarise(findings))
    if is_ill:
        raise typer.Exit(EXIT_ILL)


def examine_tracking(study: Study, address: str | None) -> Finding:
    """Look for the tracking server from here: the driver alone uses it."""
    from distprune.core.credentials import hide_credentials
    from distprune.search.findings import DRIVER, failed, passed, warned
    from distprune.tracking.reachable import find_obstacle

    uri = study.spec.tracking.uri
    if uri is None and address is None:
        return passed("tracking", DRIVER, "a SQLite file beside the study")
    if uri is None:
        return warned(
            "tracking",
            DRIVER,
            "no server is named, so runs go to a SQLite file that others cannot watch safely",
            "start `mlflow server` and name it with tracking.uri",
        )
    obstacle = find_obstacle(uri)
    shown = hide_credentials(uri)
    if obstacle is None:
        return passed("tracking", DRIVER, f"{shown} answers")
    return failed(
        "tracking",
        DRIVER,
        f"{shown} {obstacle}",
        "start the server, correct tracking.uri, or set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD here; without it a study runs and sends its runs later",
    )


def format_findings(findings: Sequence[Finding]) -> str:
    """Return a line a finding in columns, what to do below those that need it."""
    signs = {"ok": "ok", "warning": "warn", "failure": "FAIL"}
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        place = "" if finding.severity == "ok" and finding.node == "driver" else f"{finding.node}: "
        lines.append(
            f"{signs[finding.severity]:<4}  {finding.name:<{width}}  {place}{finding.what}"
        )
        if finding.advice:
            lines.append(f"{'':<4}  {'':<{width}}  -> {finding.advice}")
    return "\n".join(lines)


def summarise(findings: Sequence[Finding]) -> str:
    """Return what all findings come to."""
    counts = {
        severity: sum(finding.severity == severity for finding in findings)
        for severity in ("failure", "warning")
    }
    if counts["failure"]:
        return f"{counts['failure']} to mend before the study is started"
    if counts["warning"]:
        return f"the study would run; {counts['warning']} to look at"
    return "the study would run"
