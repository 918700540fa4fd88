"""The trained model of a study's best mask, read back from the study's store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from distprune.core.compaction import compact
from distprune.core.mask import Mask
from distprune.errors import CheckpointError, StorageError
from distprune.library.history import History, read_trials
from distprune.library.mask_reference import BestReference
from distprune.models.checkpoint import (
    inspect_checkpoint,
    load_classifier,
    load_tokenizer,
    name_labels,
)
from distprune.models.source import fingerprint_checkpoint, locate_checkpoint
from distprune.store.entry import Entry
from distprune.store.store import Store
from distprune.tasks.prepared import PreparedTask, TaskFacts
from distprune.trial.work.weights import load_model

DEFAULT_TOKENS = 128.0
"""Tokens of an example for multiply-accumulates, where no task says how many there are."""


@dataclass(frozen=True)
class TrainedModel:
    """A compact model as a study trained it.

    Attributes:
        model: In evaluation mode; its labels have the task's names.
        mask: Units that it kept.
        tokenizer: Of its checkpoint.
        evidence: What the study says about the mask.
        num_tokens: Mean tokens of an example of the search split.
    """

    model: Any
    mask: Mask
    tokenizer: Any
    evidence: Mapping[str, Any]
    num_tokens: float


def load_trained(best: BestReference) -> TrainedModel:
    """Load the model that was evaluated for a study's best mask.

    Raises:
        StorageError: The store has lost its weights, or a file of the study cannot be read.
        CheckpointError: The study's checkpoint is gone, or is another one by now.
    """
    mask = Mask.load(best.path)
    evidence = dict(mask.metadata)
    store = best.folder.open_store()
    lineage = evidence["lineage"]
    weights = _find(store, lineage["weights"], best)
    evaluation = _find(store, lineage["evaluation"], best)
    checkpoint = _find_checkpoint(best, evidence)
    facts = _read_facts(store, evaluation, best)
    path = weights.path(lineage["weights_file"])
    model = load_model(path, checkpoint, facts.num_labels, mask).eval()
    name_labels(model, facts.label_names)
    return TrainedModel(
        model=model,
        mask=mask,
        tokenizer=load_tokenizer(checkpoint),
        evidence=evidence,
        num_tokens=facts.mean_tokens["search"],
    )


def compact_checkpoint(mask: Mask, checkpoint: str) -> TrainedModel:
    """Compact a dense fine-tuned checkpoint, with the head that it brings.

    Raises:
        CheckpointError: It cannot be read, has no head of its own, or is compact already.
        MaskError: The mask was made for other counts.
    """
    facts = inspect_checkpoint(checkpoint)
    if facts.head_outputs is None:
        raise CheckpointError(
            f"checkpoint: {checkpoint!r} has no classification head, so its outputs would be "
            "random; name a fine-tuned one, or train the mask on a task (distprune train)"
        )
    model, _ = load_classifier(checkpoint, facts.head_outputs, seed=0)
    return TrainedModel(
        model=compact(model, mask).eval(),
        mask=mask,
        tokenizer=load_tokenizer(checkpoint),
        evidence=mask.metadata,
        num_tokens=DEFAULT_TOKENS,
    )


def _find(store: Store, key: str, best: BestReference) -> Entry:
    entry = store.find(key)
    if entry is None:
        raise StorageError(
            f"store {best.folder.place.store}: has no entry {key[:12]} any more, which the best "
            f"mask at {best.milestone:g} was measured with; run `distprune search` again to go on "
            f"with study {best.folder.name}, it computes what is missing"
        )
    return entry


def _find_checkpoint(best: BestReference, evidence: Mapping[str, Any]) -> str:
    """Return the name of the study's checkpoint, if it still is what it was."""
    trials = read_trials(History(best.folder.history).events())
    name = str(trials[evidence["trial"]].start.spec["checkpoint"])
    if fingerprint_checkpoint(locate_checkpoint(name)) != evidence["checkpoint"]["fingerprint"]:
        raise CheckpointError(
            f"checkpoint: {name!r} has changed since study {best.folder.name} ran; restore the "
            "files that it ran with"
        )
    return name


def _read_facts(store: Store, evaluation: Entry, best: BestReference) -> TaskFacts:
    inputs = cast(Mapping[str, str], evaluation.record["inputs"])
    prepared = _find(store, inputs["task"], best)
    return PreparedTask.open(prepared.path("facts.json").parent).facts
