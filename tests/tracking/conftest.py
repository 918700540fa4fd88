"""One tracking database for all tests of a process; every test has an experiment of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distprune.library.history import Event
from distprune.tracking import naming
from distprune.tracking.client import open_client, prepare_environment
from distprune.tracking.tracker import Tracker, TrackingSummary
from distprune.tracking.trial_run import DrawLevel
from tests.tracking.events import MILESTONES

PNG = b"\x89PNG\r\n\x1a\n made up"


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking database; making it takes seconds."""
    prepare_environment()
    address = f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"
    open_client(address).search_experiments()
    return address


@dataclass
class Tracked:
    """A study in the tracking database, and what is found there."""

    uri: str
    name: str
    folder: Path
    drawn: list[int] = field(default_factory=list)

    @property
    def client(self) -> Any:
        return open_client(self.uri)

    def draw(self, start: Any, level: Any, previous: Any) -> bytes:
        self.drawn.append(level.level)
        return PNG

    def track(
        self,
        events: list[Event],
        artifacts: tuple[tuple[Path, str], ...] = (),
        summary: dict[str, float] | None = None,
        timeout_s: float = 60.0,
        draw: DrawLevel | None = None,
    ) -> TrackingSummary:
        """Feed a new tracker with events, as one process of a study does."""
        self.folder.mkdir(exist_ok=True)
        configuration = self.folder / "study.yaml"
        configuration.write_text("name: made up\n")
        tracker = Tracker(
            *(self.uri, str(self.folder / "artifacts"), self.name, "id7", "accuracy"),
            draw or self.draw,
            delays_s=(0.01,),
        )
        tracker.start(configuration, MILESTONES)
        for event in events:
            tracker.notice(event)
        return tracker.finish(artifacts, summary or {}, timeout_s)

    def find(self, kind: str) -> list[Any]:
        """Return the runs of a kind, trials by number."""
        experiment = self.client.get_experiment_by_name(naming.name_experiment(self.name))
        if experiment is None:
            return []
        runs = self.client.search_runs([experiment.experiment_id], max_results=1000)
        runs = [run for run in runs if run.data.tags[naming.KIND] == kind]
        return sorted(runs, key=lambda run: run.data.tags.get(naming.TRIAL, ""))

    def list_files(self, run: Any) -> list[str]:
        """Return the paths of all artifacts of a run."""
        pending, files = [""], []
        while pending:
            for item in self.client.list_artifacts(run.info.run_id, pending.pop() or None):
                (pending if item.is_dir else files).append(item.path)
        return sorted(files)

    def photograph(self) -> list[Any]:
        """Return everything that can be seen of the study."""
        return [
            (
                run.info.run_id,
                *(run.info.status, run.info.start_time, run.info.end_time),
                *(dict(run.data.params), dict(run.data.tags)),
                {
                    name: [
                        (point.step, point.value, point.timestamp)
                        for point in self.client.get_metric_history(run.info.run_id, name)
                    ]
                    for name in run.data.metrics
                },
                self.list_files(run),
            )
            for run in (*self.find(naming.KIND_STUDY), *self.find(naming.KIND_TRIAL))
        ]


def strip(run: tuple[Any, ...]) -> tuple[Any, ...]:
    """Drop what differs between two studies: ids and names."""
    _, status, start, end, parameters, tags, metrics, files = run
    own = {name: value for name, value in tags.items() if name.startswith("distprune.")}
    return status, start, end, parameters, own | {naming.STUDY: ""}, metrics, files


@pytest.fixture
def study(uri: str, tmp_path: Path, request: pytest.FixtureRequest) -> Tracked:
    """A study that nothing is tracked of yet."""
    return Tracked(uri, request.node.name, tmp_path / "study")


@pytest.fixture
def history(study: Tracked, uri: str) -> Callable[[str, str], list[tuple[int, float]]]:
    """Reads (step, value) of a metric of the only trial."""

    def read(name: str, kind: str = naming.KIND_TRIAL) -> list[tuple[int, float]]:
        (run,) = study.find(kind)
        points = study.client.get_metric_history(run.info.run_id, name)
        return sorted((point.step, point.value) for point in points)

    return read
