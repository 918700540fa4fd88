"""What is said of a comparison, and the file that keeps it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.cost import Sparsities
from distprune.errors import StorageError
from distprune.library.confirmation import (
    SCHEMA,
    describe_arm,
    format_difference,
    list_outdated,
    locate_confirmation,
    name_points,
    read_confirmation,
    write_confirmation,
)
from distprune.library.leaderboard import Leaderboard, LeaderboardRow
from distprune.library.study_folder import StudyFolder
from tests.library.confirmations import make_arm, make_confirmation, make_difference, make_mask

NAMES = ("best", "dense", "random", "lambda_0", "magnitude", "inverted")


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path, "mine")


@pytest.mark.parametrize(
    ("name", "estimate", "low", "high", "words"),
    [
        ("random", 0.021, 0.015, 0.027, "better than random masks by 2.1 points [1.5, 2.7]"),
        (
            "lambda_0",
            0.003,
            -0.004,
            0.01,
            "not distinguishable from λ = 0: +0.3 [-0.4, +1.0] points",
        ),
        ("dense", -0.02, -0.03, -0.01, "worse than dense by 2.0 points [1.0, 3.0]"),
        ("lambda_1", 0.002, 0.0002, 0.004, "better than λ = 1 by 0.20 points [0.02, 0.40]"),
        (
            "magnitude",
            0.0,
            0.0,
            0.0,
            "not distinguishable from magnitude: +0.0 [+0.0, +0.0] points",
        ),
    ],
)
def test_statement(name: str, estimate: float, low: float, high: float, words: str) -> None:
    arm = make_arm(name, 0.8, 0.8, difference=make_difference(estimate, low, high))
    assert describe_arm(arm, "accuracy") == words


def test_errors_have_no_points() -> None:
    arm = make_arm("random", 0.8, 0.8, difference=make_difference(0.1234, 0.05, 0.2))
    assert describe_arm(arm, "mean_squared_error") == (
        "better than random masks by 0.123 [0.05, 0.2]"
    )
    assert arm.difference is not None
    assert format_difference(arm.difference, "mean_squared_error") == "+0.123 [+0.05, +0.2]"


def test_notes_are_part_of_the_statement() -> None:
    difference = make_difference(0.021, 0.015, 0.027)
    arm = make_arm("lambda_0", 0.8, 0.8, difference=difference, note="keeps 3 heads")
    assert describe_arm(arm, "accuracy").endswith("points [1.5, 2.7]; keeps 3 heads")
    assert describe_arm(make_arm("inverted", note="does not fit"), "accuracy") == "does not fit"
    assert describe_arm(make_arm("best", 0.8), "accuracy") == ""


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_only_an_interval_without_zero_is_a_verdict(
    estimate: float, below: float, above: float
) -> None:
    difference = make_difference(estimate, estimate - below, estimate + above)
    words = describe_arm(make_arm("random", 0.8, 0.8, difference=difference), "accuracy")
    is_inside = estimate - below <= 0 <= estimate + above
    assert words.startswith("not distinguishable") == is_inside
    if not is_inside:
        assert words.startswith("better" if estimate > 0 else "worse")
        assert "-" not in words


def test_mean_and_deviation() -> None:
    arm = make_arm("best", 0.80, 0.81, 0.82)
    assert arm.mean == pytest.approx(0.81)
    assert arm.deviation == pytest.approx(0.01)
    assert make_arm("best", 0.8).deviation is None
    assert make_arm("best").mean is None


def test_what_is_written_is_read_again(folder: StudyFolder) -> None:
    confirmation = make_confirmation()
    assert read_confirmation(folder) is None
    write_confirmation(folder, confirmation)
    assert read_confirmation(folder) == confirmation


def test_file_is_complete_for_programs(folder: StudyFolder) -> None:
    write_confirmation(folder, make_confirmation())
    values = json.loads(locate_confirmation(folder).read_text())
    assert values["schema"] == SCHEMA
    arms = {arm["name"]: arm for arm in values["masks"][0]["arms"]}
    assert tuple(arms) == NAMES
    assert arms["best"]["mean"] == pytest.approx(0.81)
    assert arms["random"]["statement"] == "better than random masks by 2.1 points [1.5, 2.7]"
    assert (arms["magnitude"]["mean"], arms["magnitude"]["deviation"]) == (None, None)


@pytest.mark.parametrize("text", ["", "[]", "{}", f'{{"schema": "{SCHEMA}"}}', '{"schema": "x"}'])
def test_damaged_file(text: str, folder: StudyFolder) -> None:
    path = locate_confirmation(folder)
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(StorageError, match="run `distprune confirm` again") as caught:
        read_confirmation(folder)
    assert "\n" not in str(caught.value)


def test_numbers_of_a_tracker_at_each_milestone() -> None:
    points = name_points(make_confirmation())
    values = {(milestone, arm, what): value for milestone, arm, what, value in points}
    assert values[0.3, "best", "mean"] == values[0.5, "best", "mean"] == pytest.approx(0.81)
    assert values[0.5, "random", "difference"] == 0.021
    assert (0.5, "best", "difference") not in values
    assert not [place for place in values if place[1] in ("magnitude", "inverted")]
    assert len(points) == len(values) == 2 * (4 + 3)


def test_other_best_masks_since() -> None:
    row = LeaderboardRow(0.3, 4, 2, 0.8, 0.8, 0.9, Sparsities(0.3, 0.3, 0.3, 0.3), {})
    board = Leaderboard(
        "mine", "accuracy", True, {}, {}, {}, None, [row, replace(row, milestone=0.5)]
    )
    confirmation = make_confirmation()
    assert list_outdated(confirmation, board) == []
    changed = replace(board, rows=[row, replace(row, milestone=0.5, trial=7)])
    assert list_outdated(confirmation, changed) == [0.5]
    one = make_confirmation(masks=(make_mask(milestones=(0.5,)),))
    assert list_outdated(one, board) == []
