"""Stage `probe`: train a head on the pre-trained body, which the recipe freezes."""

from __future__ import annotations

from pathlib import Path

from distprune.store.store import Store
from distprune.trial.request import StageRequest
from distprune.trial.work.dense import fine_tune, write_dense


def work(request: StageRequest, store: Store, folder: Path) -> None:
    """Write the pre-trained weights with the trained head."""
    write_dense(request, fine_tune(request, store, request.seed), folder)
