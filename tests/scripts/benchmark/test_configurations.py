"""The twelve configurations: balanced, and a study file that distprune runs exactly so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from distprune.search.study_file import load_study
from scripts.benchmark.configurations import TWELVE, Configuration, fixed_study, write_study
from scripts.benchmark.settings import Settings


def test_each_schedule_meets_each_rewinding_point_twice() -> None:
    assert len(set(TWELVE)) == 12
    pairs = Counter((one.levels, one.rewinding) for one in TWELVE)
    assert pairs == {(n, point): 2 for n in (2, 4) for point in (0.0, 0.5, "continue")}
    assert {one.coefficient for one in TWELVE} == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_the_study_runs_these_configurations_to_the_end(tmp_path: Path) -> None:
    values = fixed_study(Settings(tmp_path), "twelve", tmp_path / "studies", TWELVE)
    study = load_study(write_study(values, tmp_path / "study.yaml"), {})
    assert study.spec.stopping is None
    assert study.milestones == (0.25, 0.5)
    assert study.spec.num_trials == len(study.spec.start_with) == 12
    found = [study.make_trial(point).pruning for point in study.spec.start_with]
    assert [
        Configuration(one.mixing.coefficient, one.schedule.levels, one.rewinding) for one in found
    ] == list(TWELVE)
    assert study.base.retraining.distillation.weight == 0.0
