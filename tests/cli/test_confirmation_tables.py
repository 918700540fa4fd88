"""What people read of a confirmation, and what `distprune results` adds to itself."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from distprune.cli.confirmation_tables import (
    collect_trust,
    show_confirmation,
    show_trust,
    summarise_confirmation,
)
from distprune.core.cost import Sparsities
from distprune.library.confirmation import write_confirmation
from distprune.library.forgetting import write_forgetting
from distprune.library.leaderboard import Leaderboard, LeaderboardRow
from distprune.library.study_folder import StudyFolder
from tests.library.confirmations import make_confirmation
from tests.library.test_forgetting import make_forgetting

STATEMENTS = (
    "Confirmed at 30 and 50 % with 3 fresh seeds: 0.8100 ± 0.0100 on report (own run 0.8200); "
    "worse than dense by 2.0 points [1.0, 3.0]; "
    "better than random masks by 2.1 points [1.5, 2.7]; not distinguishable from λ = 0: +0.3 "
    "[-0.4, +1.0] points; magnitude: same mask as the best; inverted masks: does not fit: too few "
    "removed"
)


def make_board(trial: int = 4) -> Leaderboard:
    rows = [
        LeaderboardRow(milestone, trial, 2, 0.8, 0.8, 0.9, Sparsities(0.5, 0.5, 0.5, 0.5), {})
        for milestone in (0.3, 0.5)
    ]
    return Leaderboard("mine", "accuracy", True, {}, {}, {}, None, rows)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path, "mine")


def write(show: Callable[[Console], None], width: int = 120) -> str:
    file = io.StringIO()
    show(Console(width=width, file=file))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_table(width: int) -> None:
    text = write(lambda console: show_confirmation(console, make_confirmation()), width)
    lines = [line.split() for line in text.splitlines()]
    assert ["best", "3", "0.8100", "±", "0.0100"] in lines
    assert "mine, 30 and 50 % removed (trial 4, level 2)" in text
    words = " ".join(text.split())
    assert "random masks 3 0.7900 ± 0.0100 +2.1 [+1.5, +2.7] better" in words
    assert "λ = 0 3 0.8067 ± 0.0115 +0.3 [-0.4, +1.0] not distinguishable" in words
    assert "dense 3 0.8333 ± 0.0058 -2.0 [-3.0, -1.0] worse" in words
    assert "magnitude - - not compared" in words
    assert "magnitude: same mask as the best" in words
    assert "All arms: trained once from the pre-trained weights." in words


def test_winners_curse_is_shown() -> None:
    words = " ".join(write(lambda console: show_confirmation(console, make_confirmation())).split())
    assert (
        "The study's own run: 0.8400 on search, where it was chosen, 0.8200 on report; fresh seeds "
        "on report: 0.8100."
    ) in words


def test_how_sure_it_is_is_said() -> None:
    words = " ".join(write(lambda console: show_confirmation(console, make_confirmation())).split())
    assert (
        "Differences in points (hundredths of accuracy) with intervals of 98.3 % over seeds and "
        "the 4,000 examples of the report split (5,000 draws). Comparisons were looked at after 3, "
        "4, 5 seeds, and the looks share an error of 5 %; each comparison is judged alone."
    ) in words
    errors = make_confirmation(metric="mean_squared_error", higher_is_better=False)
    words = " ".join(write(lambda console: show_confirmation(console, errors)).split())
    assert "Differences as the metric is (lower is better, positive = best wins)" in words


def test_results_have_a_line_for_each_mask(folder: StudyFolder) -> None:
    write_confirmation(folder, make_confirmation())
    text = write(lambda console: show_trust(console, folder, make_board()))
    assert " ".join(text.split()) == STATEMENTS


def test_masks_that_are_no_longer_the_best() -> None:
    lines = summarise_confirmation(make_confirmation(), make_board(trial=5))
    assert lines[1] == (
        "At 30 and 50 % the study has found another best mask since; run `distprune confirm` again"
    )


def test_forgetting_has_a_row_a_layer(folder: StudyFolder) -> None:
    write_forgetting(folder, [make_forgetting()])
    text = write(lambda console: show_trust(console, folder, make_board()))
    lines = [line.split() for line in text.splitlines()]
    assert ["0", "0.40", "[0.20,", "0.60]", "0.45", "[0.35,", "0.55]"] in lines
    assert ["1", "-", "-"] in lines
    assert "Pre-trained importance by mlm." in " ".join(text.split())


def test_several_domains_stand_side_by_side(folder: StudyFolder) -> None:
    one = make_forgetting(seeds=(1,))
    write_forgetting(folder, [one, make_forgetting(domain="tweets", seeds=(1,))])
    text = write(lambda console: show_trust(console, folder, make_board()))
    assert ["0", "0.40", "0.45", "0.40", "0.45"] in [line.split() for line in text.splitlines()]


def test_programs_get_the_same(folder: StudyFolder) -> None:
    assert collect_trust(folder) == {}
    assert write(lambda console: show_trust(console, folder, make_board())) == ""
    write_confirmation(folder, make_confirmation())
    write_forgetting(folder, [make_forgetting()])
    values = collect_trust(folder)
    assert values["confirmation"] == make_confirmation().to_values()
    assert values["forgetting"]["domains"][0]["domain"] == "movies"
