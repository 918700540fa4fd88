"""Stage `evaluate`: the task's metric of a model on one split, and its raw outputs."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from distprune.core.first_token import only_first_token
from distprune.core.mask import Mask
from distprune.store.store import Store
from distprune.trial.request import StageRequest
from distprune.trial.stage_kinds import EVALUATION_BATCHES
from distprune.trial.stages import METRICS_FILE
from distprune.trial.work.batches import iterate_batches
from distprune.trial.work.even_widths import even_widths
from distprune.trial.work.inputs import autocast, find_device, load_input_model, open_task


def work(request: StageRequest, store: Store, folder: Path) -> None:
    """Write the metric, and the logits and labels that it was made of."""
    import numpy as np
    from safetensors.numpy import save_file

    settings = request.settings
    device = find_device()
    mask = Mask.unpack(settings["mask"])
    model = load_input_model(request, store, "weights", mask)
    model.to(device).eval()
    task = open_task(request, store)
    dataset = task.split(settings["split"])
    rows_of_batches: list[int] = []
    outputs: list[torch.Tensor] = []  # on the device until the end: a copy would wait for it
    with (
        torch.no_grad(),
        autocast(device, settings["precision"]),
        only_first_token(model),
        even_widths(model, mask),
    ):
        for rows, batch in iterate_batches(
            dataset,
            range(len(dataset)),
            EVALUATION_BATCHES[device.type],
            request.places["checkpoint"],
            device,
        ):
            batch.pop("labels")
            rows_of_batches += rows
            outputs.append(model(**batch).logits.float())
    logits = np.zeros((len(dataset), settings["num_labels"]), dtype=np.float32)
    logits[rows_of_batches] = torch.cat(outputs).cpu().numpy()
    labels = np.asarray(dataset["labels"])
    metric = task.metric.compute(logits, labels)
    save_file({"logits": logits, "labels": labels}, folder / "outputs.safetensors")
    summary = {"metric": metric, "name": task.metric.name, "examples": len(labels)}
    (folder / METRICS_FILE).write_text(json.dumps(summary))
