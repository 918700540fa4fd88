"""Later results: what is found out about a study after its end, sent to the run that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from distprune.core.credentials import hide_credentials
from distprune.tracking import naming
from distprune.tracking.batches import Point, log_points
from distprune.tracking.client import SQLITE, is_outage, open_client, prepare_environment
from distprune.tracking.lookup import find_run
from distprune.tracking.sender import DELAYS_S, Sender
from distprune.tracking.tracker import TrackingSummary
from distprune.tracking.trial_run import StudyIdentity


def send_later_results(
    uri: str,
    study: StudyIdentity,
    metrics: Mapping[str, float],
    step: int,
    artifacts: Sequence[tuple[Path, str]],
    timeout_s: float,
    delays_s: tuple[float, ...] = DELAYS_S,
) -> TrackingSummary:
    """Add metrics and files to the run of a study that has ended; never raises.

    Sending the same again changes nothing: the metrics bear the time at which the study ended.

    Args:
        uri: `http(s)://...` of a tracking server, or `sqlite:///` and an absolute path.
        study: The study.
        metrics: Values by name.
        step: Step of all of them.
        artifacts: Files, each with its artifact folder; the empty text is the top folder.
        timeout_s: Longest time in seconds that a server which is away is tried for.
        delays_s: Seconds before each further attempt; the last one repeats.

    Returns:
        What became of it; what is unsent is sent by the next call.
    """
    prepare_environment()
    sender = Sender(f"tracking {hide_credentials(uri)}", is_outage, delays_s)
    points = [Point(naming.clean_name(name), value, step) for name, value in metrics.items()]
    sender.put(partial(_send, partial(_open, uri), study, points, artifacts))
    sender.start()
    sent, unsent = sender.finish(timeout_s)
    return TrackingSummary(sent, unsent, url=None)


def _open(uri: str) -> Any:
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        raise LookupError("the study was not tracked")
    return open_client(uri)


def _send(
    connect: Callable[[], Any],
    study: StudyIdentity,
    points: Sequence[Point],
    artifacts: Sequence[tuple[Path, str]],
) -> None:
    client = connect()
    experiment = client.get_experiment_by_name(naming.name_experiment(study.name))
    run = experiment and find_run(client, experiment.experiment_id, study.tags(naming.KIND_STUDY))
    if not run:
        raise LookupError("the study has no run")
    ended = run.info.end_time or run.info.start_time
    log_points(client, run.info.run_id, points, ended / 1000)
    for path, folder in artifacts:
        client.log_artifact(run.info.run_id, str(path), folder or None)
