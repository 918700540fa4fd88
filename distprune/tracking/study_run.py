"""The tracked run of a study, its trials nested in it. Sending things again changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distprune.library.history import Event, MilestoneReached, TrialStarted
from distprune.tracking import naming
from distprune.tracking.batches import Point, log_parameters, log_points, milliseconds
from distprune.tracking.lookup import find_or_create_experiment, find_run, find_runs
from distprune.tracking.settings import list_shared_parameters
from distprune.tracking.trial_run import DrawLevel, StudyIdentity, TrialRun


class StudyRun:
    """Projects a study's events onto an MLflow store. For one thread.

    Args:
        connect: Opens the MLflow client; called once it is needed.
        study: The study.
        artifact_location: Where a new experiment keeps its artifacts; None: the server's default.
        draw_level: Draws a level's figure; None for no figures.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        study: StudyIdentity,
        artifact_location: str | None,
        draw_level: DrawLevel | None,
    ) -> None:
        self._connect = connect
        self._study = study
        self._artifact_location = artifact_location
        self._draw_level = draw_level
        self._client: Any = None
        self._configuration: Path | None = None
        self._milestones: tuple[float, ...] = ()
        self._trials: dict[int, TrialRun] = {}
        self._earlier: dict[int, Any] = {}
        self._last_time: float | None = None
        self._has_parameters = False
        self.experiment_id: str | None = None
        self.run_id: str | None = None

    def prepare(self, configuration: Path, milestones: tuple[float, ...]) -> None:
        """Make the experiment; the study's run is made with the first event, at the event's time.

        Args:
            configuration: The resolved study file.
            milestones: Sparsities of the study's grid, increasing.
        """
        self._configuration = configuration
        self._milestones = milestones
        self._find_experiment()

    def send(self, event: Event) -> None:
        """Send one event; the events of a trial in their order."""
        self._open(event.time)
        trial = self._trials.get(event.number) or self._add_trial(event.number)
        if isinstance(event, TrialStarted):
            trial.start(event)
            self._share_parameters(event)
        elif isinstance(event, MilestoneReached):
            trial.reach(event)
        else:
            trial.end(event)
        self._last_time = max(event.time, self._last_time or event.time)

    def close(
        self,
        artifacts: Sequence[tuple[Path, str]],
        summary: Mapping[str, float],
        failed: bool = False,
    ) -> None:
        """Write the study's artifacts and summary down and close its run.

        Args:
            artifacts: Files, each with its artifact folder; the empty text is the top folder.
            summary: Metrics of the study; step = number of its trials.
            failed: The study ended without a result that can be used.
        """
        end = self._last_time or time.time()
        run_id = self._open(end)
        step = len(self._trials)
        points = [Point(naming.clean_name(name), value, step) for name, value in summary.items()]
        log_points(self._client, run_id, points, end)
        for path, folder in artifacts:
            self._client.log_artifact(run_id, str(path), folder or None)
        status = "FAILED" if failed else "FINISHED"
        self._client.set_terminated(run_id, status=status, end_time=milliseconds(end))

    def _share_parameters(self, event: TrialStarted) -> None:
        """Write down on the study's run what its first trial has in common with all others."""
        if self.run_id is not None and not self._has_parameters:
            log_parameters(self._client, self.run_id, list_shared_parameters(event.spec))
            self._has_parameters = True

    def _find_experiment(self) -> str:
        if self._client is None:
            self._client = self._connect()
        if self.experiment_id is None:
            name = naming.name_experiment(self._study.name)
            self.experiment_id = find_or_create_experiment(
                self._client, name, self._artifact_location
            )
        return self.experiment_id

    def _open(self, start_time: float) -> str:
        if self.run_id is not None:
            return self.run_id
        experiment_id = self._find_experiment()
        tags = self._study.tags(naming.KIND_STUDY)
        run = find_run(self._client, experiment_id, tags)
        if run is None:
            run = self._create(experiment_id, tags, start_time)
        elif run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")
        if self._configuration is not None:
            self._client.log_artifact(run.info.run_id, str(self._configuration))
        self._earlier = self._find_trials(experiment_id)
        self.run_id = str(run.info.run_id)
        return self.run_id

    def _find_trials(self, experiment_id: str) -> dict[int, Any]:
        """Find the runs of trials that earlier processes made, at once: there may be thousands."""
        runs: dict[int, Any] = {}
        for run in find_runs(self._client, experiment_id, self._study.tags(naming.KIND_TRIAL)):
            runs.setdefault(int(run.data.tags[naming.TRIAL]), run)
        return runs

    def _create(self, experiment_id: str, tags: dict[str, str], start_time: float) -> Any:
        metric_name = naming.clean_name(self._study.metric_name)
        return self._client.create_run(
            experiment_id,
            start_time=milliseconds(start_time),
            run_name=self._study.name,
            tags={
                **tags,
                naming.STUDY: self._study.name,
                naming.SOURCE_NAME: "distprune",
                naming.DESCRIPTION: naming.describe_study(metric_name, self._milestones),
            },
        )

    def _add_trial(self, number: int) -> TrialRun:
        if self.run_id is None or self.experiment_id is None:
            raise LookupError("the study has no run yet")
        trial = TrialRun(
            client=self._client,
            study=self._study,
            experiment_id=self.experiment_id,
            parent_id=self.run_id,
            earlier=self._earlier.pop(number, None),
            draw_level=self._draw_level,
        )
        self._trials[number] = trial
        return trial
