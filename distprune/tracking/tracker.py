"""The tracker: hears of a study's events and shows them in MLflow, without ever slowing the study.

MLflow is a projection of the history. The tracker is fed with the whole history each time the study
is started, so whatever an earlier process could not send is sent by the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distprune.core.credentials import hide_credentials
from distprune.library.history import Event
from distprune.tracking import naming
from distprune.tracking.client import is_outage, open_client, prepare_environment
from distprune.tracking.pages import build_run_page
from distprune.tracking.sender import DELAYS_S, Sender
from distprune.tracking.study_run import StudyRun
from distprune.tracking.trial_run import DrawLevel, StudyIdentity

FINISH_TIMEOUT_S = 60.0
"""How long the end of a study waits for a tracking server that takes nothing more."""


@dataclass(frozen=True)
class TrackingSummary:
    """What became of a study's tracking.

    Attributes:
        sent: Updates that the tracking store has.
        unsent: Updates that it has not; starting the study again sends them.
        url: Page of the study on its tracking server; None without a server.
    """

    sent: int
    unsent: int
    url: str | None


class Tracker:
    """One writer for one study, on the driver.

    Args:
        uri: `http(s)://...` of a tracking server, or `sqlite:///` and an absolute path.
        artifact_location: Local folder or URI for the artifacts of a new experiment; None leaves
            the choice to the server.
        study_name: Name of the study.
        study_id: Letters and digits that tell studies of one name apart.
        metric_name: Name of the task's metric.
        draw_level: Draws the figure of a level from its trial's first event, its result and the
            mask of the level before; None for no figures.
        delays_s: Seconds before each further attempt after a failure; the last one repeats.
    """

    def __init__(
        self,
        uri: str,
        artifact_location: str | None,
        study_name: str,
        study_id: str,
        metric_name: str,
        draw_level: DrawLevel | None,
        delays_s: tuple[float, ...] = DELAYS_S,
    ) -> None:
        prepare_environment()
        self._uri = uri
        study = StudyIdentity(study_name, study_id, metric_name)
        self._study = StudyRun(partial(open_client, uri), study, artifact_location, draw_level)
        self._sender = Sender(f"tracking {hide_credentials(uri)}", is_outage, delays_s)

    def start(self, configuration_path: Path, milestones: Sequence[float]) -> None:
        """Begin to send; returns at once.

        Args:
            configuration_path: The resolved study file.
            milestones: Sparsities of the study's grid, increasing.
        """
        self._sender.put(partial(self._study.prepare, configuration_path, tuple(milestones)))
        self._sender.start()

    def notice(self, event: Event) -> None:
        """Take note of an event; neither blocks nor raises.

        Feed it the whole history first, then what happens; what is tracked already stays as it is.
        """
        group = naming.name_trial(event.number)
        self._sender.put(partial(self._study.send, event), group)

    def finish(
        self,
        artifacts: Sequence[tuple[Path, str]],
        summary_metrics: Mapping[str, float],
        timeout_s: float,
        failed: bool = False,
    ) -> TrackingSummary:
        """Send the study's results after everything else, wait for that, and stop.

        Args:
            artifacts: Files, each with its artifact folder; the empty text is the top folder.
            summary_metrics: Metrics of the study.
            timeout_s: Longest time in seconds in which nothing can be sent; what is left then is
                counted as unsent.
            failed: The study ended without a result that can be used.
        """
        self._sender.put(partial(self._study.close, artifacts, summary_metrics, failed))
        sent, unsent = self._sender.finish(timeout_s)
        return TrackingSummary(sent, unsent, self._url())

    def _url(self) -> str | None:
        experiment_id, run_id = self._study.experiment_id, self._study.run_id
        is_served = self._uri.startswith(("http://", "https://"))
        if not is_served or experiment_id is None or run_id is None:
            return None
        return build_run_page(hide_credentials(self._uri), experiment_id, run_id)
