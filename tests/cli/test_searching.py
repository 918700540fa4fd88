"""What a search leaves in its report folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from distprune.cli import searching as module
from distprune.cli.searching import TrackedStudy, write_figures
from distprune.library.history import History
from distprune.library.mixing_paths import read_paths
from distprune.library.study_folder import StudyFolder
from distprune.search.study import StudyStart
from distprune.search.study_file import Study
from distprune.store.store import Store
from tests.library.scored_study import run_scored_trial
from tests.report.pictures import read_size
from tests.search.synthetic import make_study
from tests.tracking.events import MILESTONES, REFERENCE


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path, "tiny")


def add_trial(
    folder: StudyFolder, number: int, metrics: tuple[float, ...], **settings: Any
) -> None:
    store = Store(str(folder.store))
    for event in run_scored_trial(store, number, metrics, **settings):
        History(folder.history).append(event)


def write(folder: StudyFolder) -> dict[str, bytes]:
    """Write the figures of a study; return all files of its report."""
    study = SimpleNamespace(milestones=MILESTONES)
    task = SimpleNamespace(metric="accuracy")
    start = SimpleNamespace(context=SimpleNamespace(task=task), reference=REFERENCE)
    write_figures(cast("Study", study), folder, cast("StudyStart", start))
    return {path.name: path.read_bytes() for path in folder.report.iterdir()}


def test_mixing_path_is_written_and_drawn(folder: StudyFolder) -> None:
    add_trial(folder, 0, (0.9, 0.8, 0.7), mixing={"operator": "convex", "coefficient": 0.3})
    files = write(folder)
    assert set(files) == {"study.png", "mixing_path.json", "mixing_path.png"}
    assert read_size(files["mixing_path.png"]) > (800, 400)
    assert [summary.milestones for summary in read_paths(folder)] == [(0.25,), (0.5,)]
    assert write(folder) == files


def test_figure_goes_with_the_last_path(folder: StudyFolder) -> None:
    add_trial(folder, 0, (0.9, 0.7, 0.6), mixing={"operator": "convex", "coefficient": 0.3})
    assert "mixing_path.png" in write(folder)
    add_trial(folder, 1, (0.9, 0.8, 0.8), mixing={"operator": "finetuned"})
    assert set(write(folder)) == {"study.png", "mixing_path.json"}
    assert {summary.reason for summary in read_paths(folder)} == {
        "only the fine-tuned importance was measured (operator finetuned)"
    }


@pytest.mark.parametrize("figures", ["all", "none"])
def test_levels_are_drawn_unless_the_study_says_no(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch, figures: str
) -> None:
    made: list[dict[str, Any]] = []

    def make(**options: Any) -> Any:
        made.append(options)
        return SimpleNamespace(start=lambda *arguments: None)

    monkeypatch.setattr(module, "Tracker", make)
    study = make_study(tracking={"figures": figures})
    task = SimpleNamespace(metric="accuracy")
    start = SimpleNamespace(study_id="id", context=SimpleNamespace(task=task))
    TrackedStudy(study, folder).on_start(cast("StudyStart", start))
    assert [options["draw_level"] is not None for options in made] == [figures == "all"]


def test_study_that_did_not_start(folder: StudyFolder) -> None:
    write_figures(cast("Study", None), folder, None)
    assert not folder.report.exists()
