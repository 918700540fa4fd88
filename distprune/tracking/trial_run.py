"""The tracked run of one trial. Sending an event a second time changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.library.history import MilestoneReached, Outcome, TrialEnded, TrialStarted
from distprune.tracking import naming
from distprune.tracking.batches import (
    Point,
    log_parameters,
    log_points,
    milliseconds,
    set_tags,
)
from distprune.tracking.lookup import find_run
from distprune.tracking.settings import list_trial_parameters
from distprune.trial.results import LevelResult, MilestoneReport
from distprune.trial.usage import StageUse, count_hosts, sum_up

logger = logging.getLogger(__name__)

DrawLevel = Callable[[TrialStarted, LevelResult, Mask], bytes]
"""Draws the figure (PNG) of a level, given the mask of the level before."""


@dataclass(frozen=True)
class StudyIdentity:
    """What the runs of one study have in common.

    Attributes:
        name: Name of the study.
        id: Letters and digits that tell studies of one name apart.
        metric_name: Name of the task's metric.
    """

    name: str
    id: str
    metric_name: str

    def tags(self, kind: str) -> dict[str, str]:
        """Return the tags that find a run of this study again."""
        return {naming.STUDY_ID: self.id, naming.KIND: kind}


class TrialRun:
    """Sends the events of one trial, in their order, to its run.

    The run remembers by a tag which milestones it has whole, so what was sent before costs nothing.

    Args:
        client: MLflow client.
        study: The study.
        experiment_id: The study's experiment.
        parent_id: The study's run.
        earlier: The trial's run, if an earlier process made it.
        draw_level: Draws a level's figure; None for no figures.
    """

    def __init__(
        self,
        client: Any,
        study: StudyIdentity,
        experiment_id: str,
        parent_id: str,
        earlier: Any | None,
        draw_level: DrawLevel | None,
    ) -> None:
        self._client = client
        self._study = study
        self._experiment_id = experiment_id
        self._parent_id = parent_id
        self._earlier = earlier
        self._was_asked_for = False
        self._draw_level = draw_level
        self._run_id: str | None = None
        self._start: TrialStarted | None = None
        self._sent_milestone = 0
        self._outcome: str | None = None
        self._last_level: LevelResult | None = None
        self._uses: tuple[StageUse, ...] = ()

    def start(self, event: TrialStarted) -> None:
        """Find or make the run, and write its parameters down once."""
        self._start = event
        if self._run_id is not None:
            return
        tags = self._study.tags(naming.KIND_TRIAL) | {naming.TRIAL: str(event.number)}
        run = self._find(tags)
        if run is None:
            self._was_asked_for = True
            run = self._create(event, tags)
        elif run.data.tags.get(naming.PARENT_RUN) != self._parent_id:
            self._client.set_tag(run.info.run_id, naming.PARENT_RUN, self._parent_id)
        if naming.SEARCHED not in run.data.tags:
            self._log_parameters(run.info.run_id, event)
        self._sent_milestone = int(run.data.tags.get(naming.MILESTONE, 0))
        self._outcome = run.data.tags.get(naming.OUTCOME)
        self._run_id = run.info.run_id

    def reach(self, event: MilestoneReached) -> None:
        """Write the metrics, masks and figures of a milestone down."""
        start, run_id = self._opened()
        report = event.report
        if report.milestone > self._sent_milestone:
            log_points(self._client, run_id, self._list_points(report), event.time)
            if report.new_levels:
                with TemporaryDirectory(prefix="distprune-") as folder:
                    self._write_artifacts(start, report.new_levels, Path(folder))
                    self._client.log_artifacts(run_id, folder)
            tags = {
                naming.MILESTONE: str(report.milestone),
                naming.HOSTS: _spell_hosts(self._uses + _gather_uses(report)),
            }
            set_tags(self._client, run_id, tags)
            self._sent_milestone = report.milestone
        if report.new_levels:
            self._last_level = report.new_levels[-1]
            self._uses += _gather_uses(report)

    def end(self, event: TrialEnded) -> None:
        """Write the outcome down and close the run."""
        _, run_id = self._opened()
        if self._outcome == event.outcome:
            return
        failed = event.outcome in (Outcome.DIVERGED, Outcome.FAILED)
        status = "FAILED" if failed else "FINISHED"
        self._client.set_terminated(run_id, status=status, end_time=milliseconds(event.time))
        if event.message or self._outcome is not None:
            self._client.set_tag(run_id, naming.MESSAGE, event.message)
        self._client.set_tag(run_id, naming.OUTCOME, str(event.outcome))
        self._outcome = str(event.outcome)

    def _opened(self) -> tuple[TrialStarted, str]:
        if self._start is None or self._run_id is None:
            raise LookupError("the history has an event of a trial that it does not start")
        return self._start, self._run_id

    def _find(self, tags: dict[str, str]) -> Any | None:
        if self._earlier is not None or not self._was_asked_for:
            return self._earlier
        # A request whose answer was lost may have made it.
        return find_run(self._client, self._experiment_id, tags)

    def _create(self, event: TrialStarted, tags: dict[str, str]) -> Any:
        return self._client.create_run(
            self._experiment_id,
            start_time=milliseconds(event.time),
            run_name=naming.name_trial(event.number),
            tags={
                **tags,
                naming.STUDY: self._study.name,
                naming.PARENT_RUN: self._parent_id,
                naming.SOURCE_NAME: "distprune",
                **_tag_answer(event),
            },
        )

    def _log_parameters(self, run_id: str, event: TrialStarted) -> None:
        parameters = list_trial_parameters(event.spec, event.parameters)
        log_parameters(self._client, run_id, parameters)
        self._client.set_tag(run_id, naming.SEARCHED, ", ".join(sorted(event.parameters)))

    def _list_points(self, report: MilestoneReport) -> list[Point]:
        metric = naming.clean_name(self._study.metric_name)
        points = [
            Point(naming.RETENTION, report.retention, report.milestone),
            Point(naming.OBJECTIVE, report.objective, report.milestone),
            Point(metric, report.metric, report.milestone),
        ]
        uses = self._uses
        for level in report.new_levels:
            uses += level.uses
            mask = level.mask
            values = {
                naming.name_level_metric(metric): level.metric,
                naming.LEVEL_SPARSITY: level.sparsity,
                naming.LEVEL_HEADS: mask.num_kept(UnitKind.HEAD),
                naming.LEVEL_NEURONS: mask.num_kept(UnitKind.NEURON),
                naming.LEVEL_SECONDS: level.seconds,
                **_count_usage(uses),
            }
            points += [Point(name, value, level.level) for name, value in values.items()]
        return points

    def _write_artifacts(
        self, start: TrialStarted, levels: tuple[LevelResult, ...], folder: Path
    ) -> None:
        previous = self._last_level
        for level in levels:
            name = naming.name_level(level.level)
            mask = level.mask.with_metadata(self._describe(start, level))
            mask.save(folder / naming.MASKS / f"{name}.safetensors")
            figure = self._draw(start, level, previous)
            if figure is not None:
                (folder / naming.IMPORTANCE).mkdir(exist_ok=True)
                (folder / naming.IMPORTANCE / f"{name}.png").write_bytes(figure)
            previous = level

    def _describe(self, start: TrialStarted, level: LevelResult) -> dict[str, Any]:
        return {
            "study": self._study.name,
            "trial": start.number,
            "checkpoint": start.spec.get("checkpoint"),
            "level": level.level,
            "sparsity": level.sparsity,
            "metric_name": self._study.metric_name,
            "metric": level.metric,
        }

    def _draw(
        self, start: TrialStarted, level: LevelResult, previous: LevelResult | None
    ) -> bytes | None:
        if self._draw_level is None or level.level == 0 or previous is None:
            return None
        try:
            return self._draw_level(start, level, previous.mask)
        except Exception as error:  # a figure is not worth a study
            run, name = naming.name_trial(start.number), naming.name_level(level.level)
            logger.warning("%s %s: tracked without its figure (%s)", run, name, error)
            return None


def _tag_answer(event: TrialStarted) -> dict[str, str]:
    if not event.is_stored:
        return {}
    equal = "yes" if event.equal_to is None else naming.name_trial(event.equal_to)
    return {naming.ANSWERED: equal}


def _gather_uses(report: MilestoneReport) -> tuple[StageUse, ...]:
    return tuple(use for level in report.new_levels for use in level.uses)


def _spell_hosts(uses: tuple[StageUse, ...]) -> str:
    return ", ".join(f"{host} {count}" for host, count in count_hosts(uses).items())


def _count_usage(uses: tuple[StageUse, ...]) -> dict[str, float]:
    usage = sum_up(uses)
    return {
        naming.STAGES_COMPUTED: usage.num_computed,
        naming.STAGES_REUSED: usage.num_reused,
        naming.STAGES_SECONDS_COMPUTED: usage.seconds_computed,
        naming.STAGES_SECONDS_SAVED: usage.seconds_saved,
        naming.STAGES_BYTES_WRITTEN: usage.bytes_written,
    }
