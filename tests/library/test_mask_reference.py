"""Mask references: files, and the best of a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from distprune.core.mask import Mask
from distprune.errors import ConfigError, MaskError
from distprune.library.mask_reference import list_milestones, load_mask_reference, parse_best
from distprune.library.study_folder import StudyFolder
from tests.model_families import SHAPE

DENSE = Mask.dense(SHAPE)


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path, "movies")
    folder.root.mkdir()
    folder.configuration.write_text("name: movies\n")
    for milestone in (0.1, 0.3, 0.25):
        DENSE.with_metadata({"milestone": milestone}).save(folder.mask(milestone))
    return folder


@pytest.mark.parametrize("text", ["best@0.3", "best@.3", "best@30%", "best@0.30000000000000004"])
def test_the_best_at_a_milestone_is_found(study: StudyFolder, text: str) -> None:
    mask = load_mask_reference(f"{study.root}/{text}")
    assert mask.metadata["milestone"] == 0.3


def test_a_relative_study_is_found(study: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.storage)
    assert load_mask_reference("movies/best@0.1").metadata["milestone"] == 0.1


def test_milestones_are_listed_in_order(study: StudyFolder) -> None:
    assert list_milestones(study) == [0.1, 0.25, 0.3]


def test_a_file_is_loaded(study: StudyFolder) -> None:
    assert load_mask_reference(str(study.mask(0.25))) == DENSE
    assert parse_best(str(study.mask(0.25))) is None


def test_a_milestone_that_the_study_has_not_is_named_with_those_it_has(study: StudyFolder) -> None:
    with pytest.raises(MaskError, match=r"no best mask at 0\.5; it has 0\.1, 0\.25, 0\.3"):
        load_mask_reference(f"{study.root}/best@0.5")


def test_a_study_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no study"):
        load_mask_reference(f"{tmp_path}/best@0.5")


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="name a file that exists"):
        load_mask_reference(str(tmp_path / "mask.safetensors"))


def test_references_to_mlflow_are_none_of_these() -> None:
    assert parse_best("models:/movies/best@0.5") is None
