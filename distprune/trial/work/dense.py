"""Stage `dense`: fine-tune the dense model; its snapshots become entries of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distprune.core.anatomy import describe_anatomy
from distprune.core.mask import Mask
from distprune.methods.spec import Recipe
from distprune.models.checkpoint import load_classifier
from distprune.store.store import Store
from distprune.trial.request import StageRequest, request_snapshot
from distprune.trial.stages import WEIGHTS_FILE
from distprune.trial.work.inputs import open_task
from distprune.trial.work.training import SaveSnapshot, train
from distprune.trial.work.weights import save_weights


def work(request: StageRequest, store: Store, folder: Path) -> None:
    """Write the fine-tuned weights, and commit those at each rewinding point."""

    def commit(point: float, live: Any) -> None:
        snapshot = request_snapshot(request, point)

        def write(entry: Path) -> None:
            write_dense(request, live, entry)

        store.get_or_commit(snapshot.key, write, snapshot.identity)

    points = tuple(point for point in request.places["rewinding_points"] if point < 1.0)
    model = fine_tune(request, store, request.seed, points, commit)
    write_dense(request, model, folder)


def fine_tune(
    request: StageRequest,
    store: Store,
    seed: int,
    snapshots: tuple[float, ...] = (),
    save_snapshot: SaveSnapshot | None = None,
    stop_at: float = 1.0,
) -> Any:
    """Train the dense model of a request up to the fraction `stop_at`, and return it."""
    settings = request.settings
    checkpoint = request.places["checkpoint"]
    # The head's first weights depend on the trial's seed alone: every recipe starts from the same.
    model, _ = load_classifier(checkpoint, settings["num_labels"], settings["seed"])
    train(
        model,
        open_task(request, store),
        Recipe.model_validate(settings["recipe"]),
        checkpoint=checkpoint,
        seed=seed,
        precision=settings["precision"],
        snapshots=snapshots,
        save_snapshot=save_snapshot,
        stop_at=stop_at,
    )
    return model


def write_dense(request: StageRequest, model: Any, folder: Path) -> None:
    """Write the weights of a dense model."""
    mask = Mask.dense(describe_anatomy(model).shape())
    checkpoint, num_labels = request.places["checkpoint"], request.settings["num_labels"]
    save_weights(model, mask, checkpoint, num_labels, folder / WEIGHTS_FILE)
