"""One store for all tests of a process: what one of them trained, the next finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from distprune.store.store import Store
from tests.trial.studies import TinyStudy


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("shared") / "store"))


@pytest.fixture(scope="session")
def study(mlm_checkpoint: Path, word_task: Path, shared_store: Store) -> TinyStudy:
    """Trials on the checkpoint that has an MLM head."""
    return TinyStudy(mlm_checkpoint, word_task, shared_store)


@pytest.fixture(scope="session")
def body_study(body_checkpoint: Path, word_task: Path, shared_store: Store) -> TinyStudy:
    """Trials on the checkpoint that has none."""
    return TinyStudy(body_checkpoint, word_task, shared_store)


@pytest.fixture(scope="session")
def degree_study(mlm_checkpoint: Path, degree_task: Path, shared_store: Store) -> TinyStudy:
    """Trials on a regression task."""
    return TinyStudy(mlm_checkpoint, degree_task, shared_store)
