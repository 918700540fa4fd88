"""Optuna's journal is for other programs: whole for them, and never waited for."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from distprune.errors import StorageError
from distprune.search.optuna_journal import JournalFile


def make_storage(path: Path) -> tuple[JournalFile, optuna.Study]:
    journal = JournalFile(path)
    study = optuna.create_study(study_name="s", storage=JournalStorage(journal))
    return journal, study


def read_file(path: Path) -> list[optuna.trial.FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name="s", storage=storage).get_trials()


def test_other_programs_read_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "journal"
    journal, study = make_storage(path)
    for number in range(3):
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        trial.suggest_categorical("y", ["a", None, 3])
        trial.report(0.5, step=1)
        study.tell(trial, float(number))
        journal.flush()
        assert read_file(path) == study.get_trials()


def test_file_of_an_earlier_session_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, study = make_storage(path)
    study.ask()
    journal.flush()
    again, study = make_storage(path)
    assert len(read_file(path)) == 1
    again.flush()
    assert read_file(path) == []
    assert study.get_trials() == []


def test_file_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, study = make_storage(path)
    journal.flush()
    path.unlink()
    path.mkdir()
    study.ask()
    with pytest.raises(StorageError, match=r"journal: cannot be written .*; free space") as caught:
        journal.flush()
    assert "\n" not in str(caught.value)
