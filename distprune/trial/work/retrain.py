"""Stage `retrain`: train the compact model of a mask from given weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distprune.core.mask import Mask
from distprune.methods.spec import Recipe
from distprune.store.store import Store
from distprune.trial.request import StageRequest
from distprune.trial.stages import WEIGHTS_FILE
from distprune.trial.work.even_widths import even_widths
from distprune.trial.work.inputs import load_input_model, open_task
from distprune.trial.work.training import train
from distprune.trial.work.weights import save_weights


def work(request: StageRequest, store: Store, folder: Path) -> None:
    """Write the weights of the retrained compact model."""
    settings = request.settings
    checkpoint = request.places["checkpoint"]
    mask = Mask.unpack(settings["mask"])
    model = load_input_model(request, store, "start", mask)
    with even_widths(model, mask):
        retrain(model, request, store)
    save_weights(model, mask, checkpoint, settings["num_labels"], folder / WEIGHTS_FILE)


def retrain(model: Any, request: StageRequest, store: Store) -> None:
    """Train `model` in place as a request says."""
    settings = request.settings
    train(
        model,
        open_task(request, store),
        Recipe.model_validate(settings["recipe"]),
        checkpoint=request.places["checkpoint"],
        seed=request.seed,
        precision=settings["precision"],
        teacher=_load_teacher(request, store),
    )


def _load_teacher(request: StageRequest, store: Store) -> Any | None:
    return (
        load_input_model(request, store, "teacher", None) if "teacher" in request.inputs else None
    )
