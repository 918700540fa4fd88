"""The command itself: its help, its exit codes, and how fast it starts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import distprune
from distprune.cli import app
from distprune.errors import (
    CheckpointError,
    ConfigError,
    DistpruneError,
    DivergedTrialError,
    StageError,
    StorageError,
    StudyExistsError,
    StudyFailedError,
)
from tests.cli.conftest import RunCommand, WriteStudy
from tests.test_imports import find_heavy_imports

VERBS = ["search", "run", "validate", "results", "ui", "check"]
START_LIMIT_S = 10.0
"""Far above what it takes (under a second), for busy machines."""


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_that_calls_the_verb(verb: str, run_command: RunCommand) -> None:
    finished = run_command(verb, "--help")
    assert finished.code == 0
    _, title, examples = finished.out.partition("Examples:\n")
    assert title
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert lines
    assert all(line.startswith(f"distprune {verb} ") for line in lines)


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help_lists_the_verbs_and_exit_codes(arguments: list[str], run_command: RunCommand) -> None:
    finished = run_command(*arguments)
    told = finished.out + finished.err
    assert all(f"\n  {verb} " in told for verb in VERBS)
    assert "0 done, 1 the study failed, 2 bad input, 130 interrupted" in told
    assert "Example: distprune search" in told


def test_version(run_command: RunCommand) -> None:
    finished = run_command("--version")
    assert (finished.code, finished.out) == (0, f"distprune {distprune.__version__}\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("levels: 9"), 2),
        (CheckpointError("checkpoint: 'x'"), 2),
        (StorageError("storage '/x'"), 2),
        (StudyExistsError("study 'x'"), 2),
        (StudyFailedError("dense model"), 1),
        (DivergedTrialError("metric"), 1),
        (StageError("stage score"), 1),
        (DistpruneError("anything"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_becomes_an_exit_code(
    error: BaseException,
    code: int,
    run_command: RunCommand,
    write_study: WriteStudy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("distprune.search.study_file.load_study", fail)
    finished = run_command("run", write_study())
    assert finished.code == code
    assert finished.err == (f"error: {error}\n" if str(error) else "")


def test_every_line_of_an_error_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        app.fail(ConfigError("one: 1\ntwo: 2"), 2)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: one: 1\nerror: two: 2\n"


def test_error_of_our_own_making_is_not_hidden(
    run_command: RunCommand, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in distprune itself shows its traceback."""

    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("distprune.search.study_file.load_study", fail)
    with pytest.raises(ZeroDivisionError):
        run_command("run", write_study())


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS), ["results", "nowhere"]],
    ids=" ".join,
)
def test_what_only_prints_imports_no_framework(arguments: list[str]) -> None:
    code = (
        "from distprune.cli.app import main\n"
        "import contextlib, io\n"
        f"sys.argv = ['distprune', *{arguments!r}]\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main()"
    )
    assert find_heavy_imports(code) == []


def test_validate_imports_no_framework(write_study: WriteStudy) -> None:
    code = (
        "from pathlib import Path\n"
        "from distprune.search.study_file import load_study\n"
        f"load_study(Path({str(write_study())!r}))"
    )
    assert find_heavy_imports(code) == []


def test_installed_command_starts_fast() -> None:
    command = Path(sys.executable).with_name("distprune")
    started = time.monotonic()
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert time.monotonic() - started < START_LIMIT_S
    assert done.returncode == 0
    assert "Usage: distprune" in done.stdout
    assert done.stderr == ""
