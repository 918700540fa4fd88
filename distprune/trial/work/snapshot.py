"""Stage `snapshot`: the dense fine-tuning up to a point that its run was not asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distprune.store.store import Store
from distprune.trial.request import StageRequest, seed_from_key
from distprune.trial.work.dense import fine_tune, write_dense


def work(request: StageRequest, store: Store, folder: Path) -> None:
    """Write the weights at `settings.point`, as the dense run itself would have saved them."""

    def save(point: float, live: Any) -> None:
        write_dense(request, live, folder)

    point = request.settings["point"]
    seed = seed_from_key(request.inputs["dense"])
    fine_tune(request, store, seed, (point,), save, stop_at=point)
