"""A job server without a cluster: what Ray's client would be told, piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.job_submission import JobStatus

Reading = Sequence[str | Exception | float]
"""What one connection to a log gives: text, an error that breaks it, or seconds of silence."""


def make_info(
    status: JobStatus, *, name: str = "job-1", code: int | None = None, **others: Any
) -> Any:
    """Return what Ray tells of a job."""
    values = {"message": None, "error_type": None, "metadata": {}, **others}
    return SimpleNamespace(status=status, submission_id=name, driver_exit_code=code, **values)


@dataclass
class FakeClient:
    """Stands for Ray's `JobSubmissionClient`.

    Attributes:
        readings: What each connection to the log gives; the last is repeated.
        infos: What is told of the job each time it is asked for; the last is repeated.
        jobs: All jobs of the cluster.
        submitted: What was handed in.
        files: Files of the working folder that was handed in, by name.
    """

    readings: list[Reading] = field(default_factory=lambda: [()])
    infos: list[Any] = field(default_factory=lambda: [make_info(JobStatus.SUCCEEDED)])
    jobs: list[Any] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def list_jobs(self) -> list[Any]:
        return self.jobs

    def submit_job(self, **request: Any) -> str:
        folder = Path(request["runtime_env"]["working_dir"])
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.submitted.append(request)
        return str(request["submission_id"])

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        for piece in take(self.readings):
            if isinstance(piece, str):
                yield piece
            elif isinstance(piece, Exception):
                raise piece
            else:
                await asyncio.sleep(piece)

    def get_job_info(self, name: str) -> Any:
        info = take(self.infos)
        if isinstance(info, Exception):
            raise info
        return info


def take(items: list[Any]) -> Any:
    """Return the first of the items; the last stays."""
    return items.pop(0) if len(items) > 1 else items[0]
