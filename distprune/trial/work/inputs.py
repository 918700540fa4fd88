"""What the stages read: the prepared task, models by reference, the device and its arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from distprune.core.mask import Mask
from distprune.errors import LostInputError
from distprune.store.entry import Entry
from distprune.store.store import Store
from distprune.tasks.prepared import PreparedTask
from distprune.trial.request import StageRequest
from distprune.trial.work.weights import load_model


def find_device() -> torch.device:
    """Return the device that this process was granted."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which a model computes in `precision`."""
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def open_task(request: StageRequest, store: Store) -> PreparedTask:
    """Open the prepared task that a request names."""
    entry = find_input(request, store, "task")
    return PreparedTask.open(entry.path("facts.json").parent)


def load_input_model(request: StageRequest, store: Store, role: str, mask: Mask | None) -> Any:
    """Load the model that a request names under `role`, compact under `mask`; None = as stored."""
    name = "file" if role == "weights" else f"{role}_file"
    path = find_input(request, store, role).path(request.settings[name])
    return load_model(path, request.places["checkpoint"], request.settings["num_labels"], mask)


def find_input(request: StageRequest, store: Store, role: str) -> Entry:
    """Return the entry that a request reads under `role`.

    Raises:
        LostInputError: It is not stored any more.
    """
    entry = store.find(request.inputs[role])
    if entry is None:
        raise LostInputError(
            f"stage {request.stage}: its input {role} ({request.inputs[role]}) is not in the store "
            "any more; restore the store, or start the study anew with --fresh"
        )
    return entry
