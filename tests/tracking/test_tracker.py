"""The tracker against a real MLflow database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from distprune.core.mask import Mask
from distprune.library.history import Outcome, TrialEnded, TrialStarted
from distprune.tracking import naming
from distprune.tracking.lookup import find_runs
from distprune.trial.usage import StageUse
from tests.tracking.conftest import PNG, Tracked, strip
from tests.tracking.events import BEGIN, LEVELS, make_level, run_trial

pytestmark = pytest.mark.xdist_group("mlflow")


def test_trials_are_nested_in_their_study(study: Tracked) -> None:
    summary = study.track([*run_trial(0), *run_trial(1)])
    (parent,) = study.find(naming.KIND_STUDY)
    trials = study.find(naming.KIND_TRIAL)
    assert parent.info.run_name == study.name
    assert [run.info.run_name for run in trials] == ["trial-000", "trial-001"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert (summary.sent, summary.unsent, summary.url) == (10, 0, None)


def test_metrics_by_milestone_and_by_level(study: Tracked, history: Any) -> None:
    study.track([*run_trial()])
    assert history("retention") == [(1, pytest.approx(0.75)), (2, pytest.approx(0.5))]
    assert history("objective") == [(1, pytest.approx(0.75)), (2, pytest.approx(0.625))]
    assert history("accuracy") == [(1, 0.8), (2, 0.7)]
    assert history("level/accuracy") == [(0, 0.9), (1, 0.8), (2, 0.7)]
    assert history("level/sparsity") == [(0, 0.0), (1, 0.25), (2, 0.5)]
    assert history("level/heads_kept") == [(0, 12), (1, 9), (2, 6)]
    assert history("level/neurons_kept") == [(0, 24), (1, 18), (2, 12)]
    assert history("level/seconds") == [(0, 0), (1, 1), (2, 2)]


def test_cost_is_summed_over_levels_and_sent_once_after_a_restart(
    study: Tracked, history: Any
) -> None:
    uses = [
        (StageUse("dense", "a", False, 60.0, 100),),
        (StageUse("score", "b", True, 5.0, 10, "h2"), StageUse("retrain", "c", False, 20.0, 40)),
        (StageUse("score", "d", True, 6.0, 11, "h1"),),
    ]
    levels = [replace(level, uses=use) for level, use in zip(LEVELS, uses, strict=True)]
    events = [*run_trial(levels=levels)]
    study.track(events[:2])
    study.track(events)
    assert history("stages/computed") == [(0, 0), (1, 1), (2, 2)]
    assert history("stages/reused") == [(0, 1), (1, 2), (2, 2)]
    assert history("stages/seconds_computed") == [(0, 0), (1, 5), (2, 11)]
    assert history("stages/seconds_saved") == [(0, 60), (1, 80), (2, 80)]
    assert history("stages/bytes_written") == [(0, 0), (1, 10), (2, 21)]
    (run,) = study.find(naming.KIND_TRIAL)
    assert run.data.tags[naming.HOSTS] == "h1 1, h2 1"


def test_answered_trial_says_so(study: Tracked) -> None:
    start, *rest = run_trial()
    assert isinstance(start, TrialStarted)
    study.track([replace(start, is_stored=True, equal_to=7), *rest])
    (run,) = study.find(naming.KIND_TRIAL)
    assert run.data.tags[naming.ANSWERED] == "trial-007"


def test_one_model_at_several_milestones(study: Tracked, history: Any) -> None:
    study.track([*run_trial(levels=[LEVELS[0], make_level(1, 0.5, 0.7)])])
    assert history("accuracy") == [(1, 0.7), (2, 0.7)]
    assert history("level/accuracy") == [(0, 0.9), (1, 0.7)]


def test_times_are_those_of_the_events(study: Tracked) -> None:
    study.track([*run_trial()])
    (parent,), (trial,) = study.find(naming.KIND_STUDY), study.find(naming.KIND_TRIAL)
    for run in (parent, trial):
        assert run.info.start_time == BEGIN * 1000
        assert run.info.end_time == (BEGIN + 30) * 1000
    points = study.client.get_metric_history(trial.info.run_id, "retention")
    assert [point.timestamp for point in points] == [(BEGIN + 10) * 1000, (BEGIN + 20) * 1000]


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.COMPLETED, "FINISHED"),
        (Outcome.STOPPED, "FINISHED"),
        (Outcome.DIVERGED, "FAILED"),
        (Outcome.FAILED, "FAILED"),
    ],
)
def test_outcome(study: Tracked, outcome: Outcome, status: str) -> None:
    study.track([*run_trial(outcome=outcome, message="why it ended")])
    (run,) = study.find(naming.KIND_TRIAL)
    assert run.info.status == status
    assert run.data.tags[naming.OUTCOME] == outcome
    assert run.data.tags[naming.MESSAGE] == "why it ended"


def test_trial_that_runs_has_no_outcome(study: Tracked) -> None:
    study.track([*run_trial(outcome=None)])
    (run,) = study.find(naming.KIND_TRIAL)
    assert run.info.status == "RUNNING"
    assert naming.OUTCOME not in run.data.tags


def test_later_outcome_replaces_the_earlier_one(study: Tracked) -> None:
    events = [*run_trial(outcome=Outcome.FAILED, message="node died")]
    events.append(TrialEnded(0, BEGIN + 99, Outcome.COMPLETED))
    study.track(events)
    (run,) = study.find(naming.KIND_TRIAL)
    assert (run.info.status, run.data.tags[naming.OUTCOME]) == ("FINISHED", "completed")
    assert run.data.tags[naming.MESSAGE] == ""


def test_artifacts_of_a_trial(study: Tracked, tmp_path: Path) -> None:
    study.track([*run_trial()])
    (run,) = study.find(naming.KIND_TRIAL)
    assert study.list_files(run) == [
        *("importance/level-01.png", "importance/level-02.png"),
        *(f"masks/level-0{level}.safetensors" for level in range(3)),
    ]
    get = study.client.download_artifacts
    path = get(run.info.run_id, "masks/level-02.safetensors", str(tmp_path))
    mask = Mask.load(path)
    assert mask == LEVELS[2].mask
    assert mask.metadata["metric"] == 0.7
    figure = get(run.info.run_id, "importance/level-01.png", str(tmp_path))
    assert Path(figure).read_bytes() == PNG


def test_a_level_is_drawn_with_the_mask_before_it(study: Tracked) -> None:
    seen = []
    study.track([*run_trial()], draw=lambda *arguments: seen.append(arguments) or PNG)
    assert [(start.number, level.level) for start, level, _ in seen] == [(0, 1), (0, 2)]
    assert [previous for *_, previous in seen] == [LEVELS[0].mask, LEVELS[1].mask]


def test_figure_that_cannot_be_drawn_costs_only_itself(
    study: Tracked, history: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def draw(*_: Any) -> bytes:
        raise ValueError("no scores")

    assert study.track([*run_trial()], draw=draw).unsent == 0
    assert "trial-000 level-01: tracked without its figure (no scores)" in caplog.text
    assert len(history("retention")) == 2


def test_study_run_has_configuration_parameters_and_results(
    study: Tracked, tmp_path: Path, history: Any
) -> None:
    board = tmp_path / "leaderboard.csv"
    board.write_text("milestone\n")
    figure = tmp_path / "study.png"
    figure.write_bytes(PNG)
    study.track([*run_trial()], ((board, ""), (figure, "report")), {"best/retention@0.5": 0.5})
    (run,) = study.find(naming.KIND_STUDY)
    assert run.info.status == "FINISHED"
    assert study.list_files(run) == ["leaderboard.csv", "report/study.png", "study.yaml"]
    assert history("best/retention_0.5", naming.KIND_STUDY) == [(1, 0.5)]
    assert run.data.params["task.dataset"] == "demo:movies"
    assert "1: 0.25, 2: 0.5" in run.data.tags[naming.DESCRIPTION]


def test_replay_changes_nothing(study: Tracked, tmp_path: Path) -> None:
    results = tmp_path / "leaderboard.csv"
    results.write_text("milestone\n")
    events = [*run_trial(0), *run_trial(1, Outcome.STOPPED), *run_trial(2, None)]
    study.track(events, ((results, ""),), {"best": 0.5})
    before = study.photograph()
    assert len(before) == 4
    assert len(study.drawn) == 6
    study.track(events, ((results, ""),), {"best": 0.5})
    assert study.photograph() == before
    assert len(study.drawn) == 6


@pytest.mark.parametrize("cut", range(1, 7))
def test_killed_after_any_event_and_started_again(study: Tracked, cut: int) -> None:
    events = [*run_trial(0), *run_trial(1)]
    study.track(events[:cut])
    study.track(events)
    study.name += "-in-one-go"
    whole = Tracked(study.uri, study.name, study.folder)
    whole.track(events)
    study.name = study.name.removesuffix("-in-one-go")
    assert [strip(run) for run in study.photograph()] == [strip(run) for run in whole.photograph()]


def test_trial_that_ran_again_keeps_one_point_per_step(study: Tracked, history: Any) -> None:
    again = [
        type(event)(**{**vars(event), "time": event.time + 500})
        for event in run_trial()
        if not isinstance(event, TrialEnded)
    ]
    study.track([*run_trial(outcome=None), *again[1:]])
    assert [step for step, _ in history("retention")] == [1, 2]
    assert [step for step, _ in history("level/seconds")] == [0, 1, 2]


def test_orphans_are_adopted(study: Tracked) -> None:
    study.track([*run_trial()])
    (parent,) = study.find(naming.KIND_STUDY)
    study.client.delete_run(parent.info.run_id)
    study.track([*run_trial()])
    (new_parent,), (trial,) = study.find(naming.KIND_STUDY), study.find(naming.KIND_TRIAL)
    assert trial.data.tags["mlflow.parentRunId"] == new_parent.info.run_id != parent.info.run_id


def test_server_is_searched_equally_often_for_few_and_many_trials(
    study: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each search takes longer, the more runs there are."""
    searches: list[str] = []
    search = MlflowClient.search_runs

    def note(*arguments: Any, **options: Any) -> Any:
        searches.append(options.get("filter_string", ""))
        return search(*arguments, **options)

    def count(*numbers: int) -> int:
        searches.clear()
        study.track([event for number in numbers for event in run_trial(number)])
        return len(searches)

    monkeypatch.setattr(MlflowClient, "search_runs", note)
    assert count(0, 1) == 2  # of the study, of its trials
    assert count(0, 1, 2) == 2
    assert count(0, 1, 2, 3) == 2
    assert len(study.find(naming.KIND_TRIAL)) == 4


def test_all_pages_of_a_search_are_read(study: Tracked) -> None:
    study.track([event for number in range(3) for event in run_trial(number)])
    experiment = study.client.get_experiment_by_name(naming.name_experiment(study.name))
    tags = {naming.KIND: naming.KIND_TRIAL}
    found = find_runs(study.client, experiment.experiment_id, tags, page_size=2)
    assert sorted(run.data.tags[naming.TRIAL] for run in found) == ["0", "1", "2"]


def test_the_environment_of_mlflow_has_no_say(
    study: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert study.track([*run_trial()]).unsent == 0
    assert len(study.find(naming.KIND_TRIAL)) == 1
