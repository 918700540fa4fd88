"""Findings: what an examination has found on a node, how bad it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from distprune.errors import InputError

DRIVER = "driver"
"""Name of the process that runs the study, among the names of nodes."""


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """The study can run; it may be slow, or fail later."""
    FAILURE = "failure"
    """The study would fail, or its numbers would depend on where a stage ran."""


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        name: What was looked at, for instance `storage`.
        node: Where: `driver`, or the name of a node; several are joined by commas.
        severity: How bad it is.
        what: What there is, in one line.
        advice: What to do about it; empty where it is well.
    """

    name: str
    node: str
    severity: Severity
    what: str
    advice: str = ""

    def __str__(self) -> str:
        """Return the finding as one line, as an error is told."""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.name} on {self.node}: {self.what}{advice}"


def passed(name: str, node: str, what: str) -> Finding:
    """Return a finding that is well."""
    return Finding(name, node, Severity.OK, what)


def warned(name: str, node: str, what: str, advice: str) -> Finding:
    """Return a finding with which the study can run."""
    return Finding(name, node, Severity.WARNING, what, advice)


def failed(name: str, node: str, what: str, advice: str) -> Finding:
    """Return a finding with which the study must not run."""
    return Finding(name, node, Severity.FAILURE, what, advice)


def describe_error(error: InputError, name: str | None = None) -> list[Finding]:
    """Return one of our errors as findings about the driver: one for each of its lines.

    Args:
        error: Its lines are "name: what; advice".
        name: What was looked at; None = as the lines say.
    """
    return [_describe_line(line, name) for line in str(error).splitlines()]


def has_failure(findings: Iterable[Finding]) -> bool:
    """Say whether the study must not run."""
    return any(finding.severity is Severity.FAILURE for finding in findings)


def _describe_line(line: str, name: str | None) -> Finding:
    subject, _, rest = line.partition(": ")
    if name is None or name == subject:
        name, line = subject, rest
    what, _, advice = line.partition("; ")
    return failed(name, DRIVER, what, advice or "correct it")
