"""A study's plan: a round of it, and all of it on a tiny study."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from distprune.search import plan as module
from distprune.search.plan import PlanRequest, plan_study, play
from distprune.search.simulation import PlannedLevel, PlannedStudy, PricedStage, Room
from distprune.search.study_file import check_study
from tests.cli.tiny_search import tiny_values
from tests.search.synthetic import make_study


def test_rule_of_the_study_stops_trials() -> None:
    study = make_study(num_trials=4, stopping={"reduction_factor": 2, "grace_milestones": 1})
    trials = tuple(
        tuple(
            PlannedLevel(
                (PricedStage(f"{number}.{level}", "retrain", "retrain", 1.0),),
                PricedStage(f"{number}.{level} on report", "evaluate", "evaluate", 0.0),
                (level,),
                1,
            )
            for level in (1, 2, 3)
        )
        for number in range(4)
    )
    report = PricedStage("report", "evaluate", "evaluate", 0.0)

    def reach(*qualities: float) -> list[int]:
        planned = PlannedStudy((), trials, qualities, report)
        return list(play(study, planned, Room(1, 1), comparable=1).reached.values())

    assert reach(0.1, 0.2, 0.3, 0.4) == [4, 4, 4]
    assert reach(0.4, 0.3, 0.2, 0.1) == [4, 1, 1]


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("ignore")
def test_tiny_study_is_planned_and_nothing_is_left(
    tmp_path: Path,
    body_checkpoint: Path,
    word_task: Path,
    ray_cluster: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def connect(*arguments: Any) -> Any:
        return nullcontext()

    monkeypatch.setattr(module, "connect_cluster", connect)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    study = check_study(tiny_values(tmp_path / "studies", body_checkpoint, word_task))
    phases: list[str] = []
    planned = plan_study(PlanRequest(study), phases.append)
    bill = planned.bill
    assert any(phase.startswith("Timing dense, evaluate, probe") for phase in phases)
    assert bill.reached[1] == 4.0
    assert bill.reached[1] >= bill.reached[2] >= bill.reached[3] >= 1.0
    assert 0 < bill.before_trials_s < bill.wall_s
    assert bill.wall_range_s[0] <= bill.wall_s <= bill.wall_range_s[1]
    assert 0 < bill.core_hours < bill.unshared_core_hours
    assert bill.num_bytes > 0
    dense = next(kind for kind in bill.kinds if kind.kind == "dense")
    assert (dense.num_computed, dense.num_needed) == (1.0, 4.0)
    assert not (tmp_path / "studies").exists()
    assert list(scratch.iterdir()) == []
