"""`distprune plan`: what it prints of a plan."""

from __future__ import annotations

import json
from dataclasses import replace

from rich.console import Console

from distprune.cli.plan import explain_plan, list_values, show_plan
from distprune.search.bill import Bill, KindBill
from distprune.search.plan import LEFT_OUT, Plan
from distprune.search.simulation import Room
from distprune.search.spec import ResourcesSpec
from distprune.trial.stage_kinds import StageKind
from distprune.trial.stage_timing import StageTiming, Timings
from tests.search.synthetic import make_study

STUDY = make_study()
PLAN = Plan(
    bill=Bill(
        num_rounds=25,
        wall_s=3725.0,
        wall_range_s=(3600.0, 4000.0),
        before_trials_s=65.0,
        core_hours=2.0,
        unshared_core_hours=3.5,
        gpu_hours=0.0,
        num_bytes=3 * 2**30,
        reached={1: 6.0, 2: 3.25, 3: 1.5},
        kinds=(KindBill("retrain (distilled)", 12.0, 14.5, 30.0, 1.5, 2**30),),
    ),
    room=Room(slots=2, concurrent=3),
    resources=ResourcesSpec(cpus_per_stage=4, gpus_per_stage=0.0),
    timings=Timings({StageKind("evaluate"): StageTiming(1.0, 0.2, 0.1, 0.05, 9, 8)}, 2.0, 61.0),
)


def show(planned: Plan) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        show_plan(console, STUDY, planned)
    return capture.get()


def test_sums_and_kinds_are_printed() -> None:
    text = show(PLAN)
    assert "synthetic: 6 trials, 3 at a time; stages of 4 cores, 2 at a time" in text
    assert "1:02:05 (1:00:00 to 1:06:40), of it 1:05 before the first trial" in text
    assert "2; 3.5 if every trial computed its own stages" in text
    assert "3.0 GiB" in text
    assert "6.0 reach 20 %, 3.2 reach 40 %, 1.5 reach 60 %" in text
    (row,) = (line for line in text.splitlines() if "retrain" in line)
    assert row.split()[2:] == ["12.0", "14.5", "30.0", "s", "1.5", "1.0", "GiB"]
    assert "GPU" not in text


def test_gpu_hours_are_printed_where_there_are_gpus() -> None:
    resources = ResourcesSpec(cpus_per_stage=4, gpus_per_stage=0.5)
    bill = replace(PLAN.bill, gpu_hours=1.25)
    text = show(replace(PLAN, bill=bill, resources=resources))
    assert "stages of 4 cores and 0.5 GPUs" in text
    assert "GPU hours   1.25" in text


def test_it_says_how_it_was_made() -> None:
    assert "median of 25 rounds" in explain_plan(PLAN)


def test_large_study_has_no_range() -> None:
    text = show(replace(PLAN, bill=replace(PLAN.bill, num_rounds=1)))
    assert "wall time   1:02:05, of it 1:05" in text
    assert "played through once" in text
    assert "median" not in text


def test_it_says_what_is_left_out() -> None:
    assert all(f"- {text}" in explain_plan(PLAN) for text in LEFT_OUT)


def test_json_has_the_same_numbers() -> None:
    values = json.loads(json.dumps(list_values(STUDY, PLAN)))
    assert values["wall_s"] == 3725.0
    assert values["reached"] == {"0.2": 6.0, "0.4": 3.25, "0.6": 1.5}
    assert values["kinds"][0]["num_computed"] == 12.0
    assert values["timings"]["evaluate"]["target_s"] == 0.05
    assert values["room"]["slots"] == 2
