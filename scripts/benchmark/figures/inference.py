"""Inference of the compact model: the speed-up, beside the one that MACs promise."""

from __future__ import annotations

import torch

from distprune.core.anatomy import describe_anatomy
from distprune.core.cost import encoder_cost
from scripts.benchmark.models import DENSE, build_models, draw_batch
from scripts.benchmark.results import Limit, Row, Values
from scripts.benchmark.settings import Settings
from scripts.benchmark.spread import divide, summarise
from scripts.benchmark.timing import run_apart, time_in_turn

BATCH = (32, 128)
SPARSITY = 0.5
THREADS = (1, 2)
LIMIT = 0.85


def measure(settings: Settings) -> Values:
    """Time whole models in float32; MACs are those of the encoder."""
    rows, details = [], {}
    for threads in THREADS:
        promised, seconds = run_apart(time_inference, threads, settings.rounds)
        speedups = divide(seconds["dense"], seconds["compact"])
        rows.append(
            Row(
                f"inference at 50 %, measured speed-up / promised by MACs, {threads} thread"
                + ("s" if threads > 1 else ""),
                summarise([speedup / promised for speedup in speedups]),
                Limit(">=", LIMIT),
            )
        )
        details[f"{threads} threads"] = {"promised": promised, "seconds": seconds}
    return Values(rows, {"batch": BATCH, "precision": "float32", **details})


def time_inference(threads: int, rounds: int) -> tuple[float, dict[str, list[float]]]:
    """Return the speed-up that MACs promise, and the seconds of each round."""
    torch.set_num_threads(threads)
    models, masks = build_models((DENSE, SPARSITY))
    batch = draw_batch(*BATCH)
    del batch["labels"]
    shape = describe_anatomy(models[DENSE]).shape()
    macs = {sparsity: encoder_cost(shape, mask, BATCH[1]).macs for sparsity, mask in masks.items()}
    for model in models.values():
        model.eval()
    with torch.inference_mode():
        seconds = time_in_turn(
            {
                "dense": lambda: models[DENSE](**batch),
                "compact": lambda: models[SPARSITY](**batch),
            },
            rounds,
        )
    return macs[DENSE] / macs[SPARSITY], seconds
