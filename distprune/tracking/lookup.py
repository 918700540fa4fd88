"""Finds what an earlier run of the same study has tracked, so that nothing is made twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distprune.tracking.naming import EXPERIMENT_KIND, MODEL_DEVELOPMENT

PAGE_SIZE = 500
"""Runs that one answer of the tracking store brings; each comes with all of its values."""


def find_or_create_experiment(client: Any, name: str, artifact_location: str | None) -> str:
    """Return the id of the experiment `name`.

    Args:
        client: MLflow client.
        name: Name of the experiment.
        artifact_location: Absolute local folder or URI for a new experiment's artifacts; None
            leaves the choice to the server.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    if artifact_location is not None and "://" not in artifact_location:
        artifact_location = Path(artifact_location).absolute().as_uri()
    tags = {EXPERIMENT_KIND: MODEL_DEVELOPMENT}
    return str(client.create_experiment(name, artifact_location=artifact_location, tags=tags))


def find_run(client: Any, experiment_id: str, tags: Mapping[str, str]) -> Any | None:
    """Return the oldest run of an experiment that has all `tags`; None if there is none."""
    return next(find_runs(client, experiment_id, tags, page_size=1), None)


def find_runs(
    client: Any, experiment_id: str, tags: Mapping[str, str], page_size: int = PAGE_SIZE
) -> Iterator[Any]:
    """Yield the runs of an experiment that have all `tags`, the oldest first."""
    conditions = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id],
            filter_string=conditions,
            max_results=page_size,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        if not (token := page.token):
            return
