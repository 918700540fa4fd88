"""Stage `prepare`: load, split and tokenise a task once, for all who train on it."""

from __future__ import annotations

from pathlib import Path

from distprune.models.checkpoint import load_tokenizer
from distprune.store.store import Store
from distprune.tasks.prepared import prepare
from distprune.tasks.spec import TaskSpec
from distprune.trial.request import StageRequest


def work(request: StageRequest, store: Store, folder: Path) -> None:
    """Write the prepared task of `settings.task` for the checkpoint's tokenizer."""
    spec = TaskSpec.model_validate(
        {**request.settings["task"], "dataset": request.places["dataset"]}
    )
    tokenizer = load_tokenizer(request.places["checkpoint"])
    prepare(spec, tokenizer, folder, vocabulary_size=request.settings["vocabulary_size"])
