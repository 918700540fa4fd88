"""Switches of the ablation: each takes one idea out of distprune, in every process of a search.

distprune has no such settings. `changed_search` names a switch in an environment variable and asks
Ray to call `install` in each worker; a switch whose seam is gone raises instead of doing nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.store.store import Store
from distprune.trial import executor
from distprune.trial.executor import StageWork
from distprune.trial.request import StageRequest
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import IMPORTANCE_FILE, METRICS_FILE, WEIGHTS_FILE, TrialStages

VARIABLE = "DISTPRUNE_BENCHMARK_SWITCH"
SALT = "benchmark_salt"


def install() -> None:
    """Throw the switch that the environment names, in this process."""
    SWITCHES[os.environ[VARIABLE]]()


def switch_off_sharing() -> None:
    """Let each trial compute everything by itself, with its own cores."""
    salt_requests(lambda stage: True, shares_cores=False)


def switch_off_mask_keys() -> None:
    """Let each trial retrain by itself, though another has retrained the same mask."""
    salt_requests(lambda stage: stage == "retrain", shares_cores=True)


def salt_requests(is_salted: Callable[[str], bool], shares_cores: bool) -> None:
    """Make the trial a part of the keys of some stages; no two trials have the same settings."""

    def change(original: Callable[..., StageRequest]) -> Callable[..., StageRequest]:
        def request(
            stages: TrialStages,
            stage: str,
            settings: dict[str, Any],
            inputs: dict[str, str] | None = None,
            is_shared: bool = False,
        ) -> StageRequest:
            if is_salted(stage):
                settings = {**settings, SALT: name_trial(stages.spec)}
            return original(stages, stage, settings, inputs, is_shared and shares_cores)

        return request

    replace_attribute(TrialStages, "_request", change)


def name_trial(spec: TrialSpec) -> str:
    """Return a name that only trials of the same settings share."""
    return hashlib.sha256(json.dumps(spec.model_dump(mode="json")).encode()).hexdigest()[:16]


def switch_off_compact_training() -> None:
    """Retrain the model in its full size, its mask applied by gates."""
    replace_work({"retrain": partial(take, retrain_full_size)})


def retrain_full_size(request: StageRequest, store: Store, folder: Path) -> None:
    """Do what `distprune.trial.work.retrain` does, without making the model smaller."""
    from distprune.core.anatomy import describe_anatomy
    from distprune.core.gating import gate
    from distprune.trial.work.inputs import load_input_model
    from distprune.trial.work.retrain import retrain
    from distprune.trial.work.weights import save_weights

    settings, checkpoint = request.settings, request.places["checkpoint"]
    model = load_input_model(request, store, "start", None)
    with gate(model, Mask.unpack(settings["mask"])):
        retrain(model, request, store)
    dense = Mask.dense(describe_anatomy(model).shape())
    save_weights(model, dense, checkpoint, settings["num_labels"], folder / WEIGHTS_FILE)


def switch_off_fused_and_bucketed() -> None:
    """Train with AdamW in plain loops, and batch examples of any length together."""

    def change(original: StageWork) -> StageWork:
        import_plain_training()
        return original

    replace_work(dict.fromkeys(("dense", "snapshot", "probe", "retrain", "score"), change))


def import_plain_training() -> None:
    """Take the fused optimiser and the batches of similar length out of training and scoring."""
    from torch.utils.data import RandomSampler

    from distprune.trial.work import batches, training

    def choose_plain(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda **settings: original(**{**settings, "optim": "adamw_torch"})

    def draw_randomly(original: Any) -> Callable[..., Any]:
        return lambda batch_size, lengths: RandomSampler(lengths)

    def keep_order(original: Any) -> Callable[..., list[int]]:
        return lambda dataset, rows: list(rows)

    replace_attribute(training, "TrainingArguments", choose_plain)
    replace_attribute(training, "SimilarLengthSampler", draw_randomly)
    replace_attribute(batches, "sort_by_length", keep_order)


def switch_off_fast_gradients() -> None:
    """Leave dropout, attention and the last layer as torch and transformers compute them."""

    def change(original: StageWork) -> StageWork:
        import_plain_gradients()
        return original

    stages = ("dense", "snapshot", "probe", "retrain", "score", "evaluate")
    replace_work(dict.fromkeys(stages, change))


def import_plain_gradients() -> None:
    """Take our dropout and attention, and the cut of the last layer, out of all stages."""
    from distprune.trial.work import evaluate, score, training

    def leave(original: Any) -> Callable[[Any], Any]:
        return lambda model: nullcontext()

    for module in (training, score):
        replace_attribute(module, "fast_cpu_gradients", leave)
    for module in (training, score, evaluate):
        replace_attribute(module, "only_first_token", leave)


def make_stages_trivial() -> None:
    """Let stages write tiny files at once, whatever they are asked for."""
    trivial = dict.fromkeys(("dense", "snapshot", "probe", "retrain"), write_no_weights)
    work = {**trivial, "score": write_random_scores, "evaluate": write_random_metric}
    replace_work({stage: partial(take, new) for stage, new in work.items()})


def take(new: StageWork, original: StageWork) -> StageWork:
    """Take the new work of a stage."""
    return new


def write_no_weights(request: StageRequest, store: Store, folder: Path) -> None:
    """Write a weights file without weights."""
    (folder / WEIGHTS_FILE).write_bytes(b"")


def write_random_scores(request: StageRequest, store: Store, folder: Path) -> None:
    """Write an importance that the request's key decides."""
    import numpy as np
    from safetensors.numpy import save_file

    mask = Mask.unpack(request.settings["mask"])
    generator = np.random.default_rng(request.seed)
    scores = {str(kind): generator.random(mask[kind].shape) for kind in UnitKind}
    save_file(scores, folder / IMPORTANCE_FILE)


def write_random_metric(request: StageRequest, store: Store, folder: Path) -> None:
    """Write a metric in [0.7, 0.9) that the request's key decides."""
    metric = 0.7 + 0.2 * request.seed / 2**31
    (folder / METRICS_FILE).write_text(json.dumps({"metric": metric}))


def replace_work(changes: Mapping[str, Callable[[StageWork], StageWork]]) -> None:
    """Change the work of some stages in the table of the executor."""

    def change(original: Callable[[str], StageWork]) -> Callable[[str], StageWork]:
        def find_work(stage: str) -> StageWork:
            work = original(stage)
            return changes[stage](work) if stage in changes else work

        return find_work

    replace_attribute(executor, "find_work", change)


def replace_attribute(owner: Any, name: str, change: Callable[[Any], Any]) -> None:
    """Replace what must be there by a change of it, once.

    Raises:
        AttributeError: distprune has no such seam any more.
    """
    original = getattr(owner, name)
    if not hasattr(original, "switched"):
        replacement = change(original)
        replacement.switched = True
        setattr(owner, name, replacement)


SWITCHES: dict[str, Callable[[], None]] = {
    "sharing": switch_off_sharing,
    "mask_keys": switch_off_mask_keys,
    "compact_training": switch_off_compact_training,
    "fused_and_bucketed": switch_off_fused_and_bucketed,
    "fast_gradients": switch_off_fast_gradients,
    "stage_work": make_stages_trivial,
}
"""What can be taken out, by the name of it."""
