"""A study that has ended, to export from."""

from __future__ import annotations

from pathlib import Path

import pytest

from distprune.library.study_folder import StudyFolder
from tests.in_process_study import run_study_in_process


@pytest.fixture(scope="session")
def ended(
    tmp_path_factory: pytest.TempPathFactory, mlm_checkpoint: Path, word_task: Path
) -> StudyFolder:
    storage = tmp_path_factory.mktemp("ended") / "studies"
    return run_study_in_process(storage, mlm_checkpoint, word_task)
