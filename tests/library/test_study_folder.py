from pathlib import Path

from distprune.library.study_folder import StudyFolder
from tests.test_imports import find_heavy_imports

FOLDER = StudyFolder(Path("/storage"), "tiny")


def test_the_store_is_shared_and_the_rest_is_the_studys_own() -> None:
    assert FOLDER.store == StudyFolder(Path("/storage"), "other").store
    names = ["configuration", "environment", "history", "optuna_journal", "ray", "report"]
    names += ["leaderboard_json", "leaderboard_csv", "tracking_database", "tracking_artifacts"]
    paths = [getattr(FOLDER, name) for name in names]
    assert {path.parent for path in paths} == {FOLDER.root}
    assert len(set(paths)) == len(paths)


def test_the_lease_stays_when_the_study_is_moved_away() -> None:
    assert FOLDER.root not in FOLDER.lease.parents
    assert FOLDER.lease != StudyFolder(Path("/storage"), "other").lease


def test_a_milestone_has_a_folder_of_its_own() -> None:
    assert FOLDER.mask(0.5) == Path("/storage/tiny/masks/0.5/mask.safetensors")
    assert FOLDER.evidence(0.30000000000000004) == FOLDER.evidence(0.3)
    assert FOLDER.mask(0.5).parent == FOLDER.evidence(0.5).parent == FOLDER.milestone(0.5)


def test_the_library_imports_no_framework() -> None:
    assert find_heavy_imports("import distprune.library.mask_library") == []
