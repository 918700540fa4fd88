"""Weights files: the compact state of a model, less what the checkpoint holds bit for bit.

The live mask is in the header, so a file says by itself how to build the model that it fits.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from distprune.core.compaction import compact
from distprune.core.mask import Mask
from distprune.errors import StageError
from distprune.models.checkpoint import load_classifier
from distprune.store.store import Store


def save_weights(model: Any, live: Mask, checkpoint: str, num_labels: int, path: Path) -> None:
    """Write the weights of `model`, which has the units of `live`."""
    from safetensors.torch import save_file

    template, missing = _load_template(checkpoint, num_labels)
    known = compact(template, live).state_dict()
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name in missing or not torch.equal(tensor.cpu(), known[name])
    }
    save_file(state, path, metadata={"mask": live.pack()})


def load_model(path: Path, checkpoint: str, num_labels: int, mask: Mask | None) -> Any:
    """Build the model of a weights file, compact under `mask`; None = as it was saved.

    Raises:
        StageError: The file does not fit the checkpoint.
        MaskError: `mask` keeps units that the file has lost.
    """
    live, state = _read(path)
    template, missing = _load_template(checkpoint, num_labels)
    model = compact(template, live)
    absent, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or missing & set(absent):
        raise StageError(f"weights {path.name}: do not fit {checkpoint!r}; start the search afresh")
    return model if mask is None or mask == live else compact(model, mask, live)


def load_head(model: Any, store: Store, key: str, file: str) -> None:
    """Give `model` the task head (and pooler) of other weights, in place."""
    entry = store.find(key)
    if entry is None:
        raise StageError(f"weights {key}: not in the store any more; start the search again")
    _, state = _read(entry.path(file))
    body = f"{model.base_model_prefix}."
    head = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(body) or name.startswith(f"{body}pooler.")
    }
    model.load_state_dict(head, strict=False)


def _read(path: Path) -> tuple[Mask, dict[str, torch.Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        live = Mask.unpack(file.metadata()["mask"])
        return live, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@lru_cache(maxsize=2)
def _load_template(checkpoint: str, num_labels: int) -> tuple[Any, frozenset[str]]:
    """Return the checkpoint's model and the names that it does not hold; never modified."""
    model, missing = load_classifier(checkpoint, num_labels, seed=0)
    return model.eval(), missing
