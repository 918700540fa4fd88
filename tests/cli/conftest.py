"""The command line in this process, and a small study file to call it with."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from distprune.cli.app import main
from distprune.search.space import set_values
from tests.cli.sessions import Ended, finish, start_search
from tests.cli.tiny_search import tiny_values

SILENCED = ("ray", "optuna", "transformers", "mlflow")


@dataclass(frozen=True)
class Finished:
    """What a call of the command line came to."""

    code: int
    out: str
    err: str


RunCommand = Callable[..., Finished]
WriteStudy = Callable[..., Path]


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str]) -> Iterator[RunCommand]:
    """Call `distprune` in this process; an error that nobody handles fails the test."""

    def run(*arguments: object) -> Finished:
        capsys.readouterr()
        with patch.object(sys, "argv", ["distprune", *map(str, arguments)]):
            try:
                main()
                code: Any = 0
            except SystemExit as end:
                code = end.code or 0
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    levels = {name: logging.getLogger(name).level for name in SILENCED}
    with patch.dict(os.environ):
        yield run
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="session")
def make_search(
    tmp_path_factory: pytest.TempPathFactory, mlm_checkpoint: Path, word_task: Path
) -> Callable[[str], Path]:
    """Write the study file of the tiny search into a new folder; the studies go beside it."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        path = folder / "study.yaml"
        values = tiny_values(folder / "studies", mlm_checkpoint, word_task)
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return make


@pytest.fixture(scope="session")
def undisturbed(make_search: Callable[[str], Path]) -> Ended:
    """The tiny search, from beginning to end in a process of its own."""
    with start_search(make_search("undisturbed")) as session:
        return finish(session)


@pytest.fixture
def write_study(tmp_path: Path, mlm_checkpoint: Path, word_task: Path) -> WriteStudy:
    """Write the study file of a tiny search; values by dotted name replace or add."""

    def write(changes: dict[str, Any] | None = None) -> Path:
        values = tiny_values(tmp_path / "studies", mlm_checkpoint, word_task)
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(set_values(values, changes or {}), sort_keys=False))
        return path

    return write
