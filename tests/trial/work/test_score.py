"""Scores: in a compact model as in the gated dense one, by every criterion and objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from distprune.core.gating import gate
from distprune.core.importance import measure_importance, measure_magnitude
from distprune.core.importance_scores import Criterion, Estimator, Importance
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import CheckpointError
from distprune.methods.ticket import Ticket, WeightsReference
from distprune.models.checkpoint import load_classifier, load_masked_language_model, load_tokenizer
from distprune.tasks.prepared import PreparedTask
from distprune.trial.stages import TrialStages
from distprune.trial.work.batches import iterate_batches
from distprune.trial.work.masked_language import mask_tokens
from distprune.trial.work.score import sample_rows
from distprune.trial.work.weights import load_model
from tests.tiny_study import SHAPE
from tests.trial.studies import TinyStudy, keep, weights_path

CPU = torch.device("cpu")
DENSE = Mask.dense(SHAPE)
MASK = keep(5, 22)
EXAMPLES = 40

Losses = Callable[[nn.Module, Any], Tensor]


def make_stages(study: TinyStudy, **importance: Any) -> TrialStages:
    return study.make_stages(pruning={"importance": {"examples": EXAMPLES} | importance})


def open_task(stages: TrialStages) -> PreparedTask:
    entry = stages.store.find(stages.context.prepared)
    assert entry is not None
    return PreparedTask.open(entry.path("facts.json").parent)


def load(stages: TrialStages, weights: WeightsReference) -> Any:
    path = weights_path(stages.store, weights)
    return load_model(path, stages.spec.checkpoint, stages.context.task.num_labels, None)


def iterate(stages: TrialStages, batch_size: int = 32) -> Iterator[tuple[list[int], Any]]:
    dataset = open_task(stages).split("train")
    rows = sample_rows(len(dataset), EXAMPLES, stages.spec.seed)
    return iterate_batches(dataset, rows, batch_size, stages.spec.checkpoint, CPU)


def class_losses(model: nn.Module, batch: Any) -> Tensor:
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return functional.cross_entropy(model(**inputs).logits, batch["labels"], reduction="none")


def number_losses(model: nn.Module, batch: Any) -> Tensor:
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return (model(**inputs).logits[:, 0] - batch["labels"]) ** 2


def word_losses(model: nn.Module, batch: Any) -> Tensor:
    """Average over the masked tokens of each example, the plain way."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    losses = []
    for logits, labels in zip(model(**inputs).logits, batch["labels"], strict=True):
        losses.append(functional.cross_entropy(logits, labels))
    return torch.stack(losses)


def measure(
    model: Any,
    batches: list[Any],
    losses: Losses,
    mask: Mask = DENSE,
    criterion: Criterion = Criterion.ABS_GRADIENT,
    estimator: Estimator = Estimator.EXAMPLE,
) -> Importance:
    """Score the dense model under gates, and forget what the gates had removed."""
    with gate(model, mask) if mask != DENSE else nullcontext():
        measured = measure_importance(model, batches, losses, criterion, estimator)
    return Importance({kind: np.stack(measured[kind]) * mask[kind] for kind in UnitKind})


def assert_close(actual: Importance, expected: Importance) -> None:
    for kind in UnitKind:
        np.testing.assert_allclose(actual[kind], expected[kind], rtol=1e-4, atol=1e-8)
        assert actual[kind].max() > 0


@pytest.mark.parametrize("mask", [DENSE, MASK, keep(1, 3)], ids=["dense", "some", "few"])
def test_a_finetuned_score_is_that_of_the_gated_dense_model(study: TinyStudy, mask: Mask) -> None:
    stages = make_stages(study)
    weights = stages.dense().weights
    scored = stages.score_finetuned(Ticket(1, 0.5, mask, weights)).importance
    batches = [batch for _, batch in iterate(stages)]
    assert_close(scored, measure(load(stages, weights), batches, class_losses, mask))


@pytest.mark.parametrize("mask", [DENSE, MASK], ids=["dense", "some"])
def test_a_masked_language_score_is_that_of_the_gated_dense_model(
    study: TinyStudy, mask: Mask
) -> None:
    stages = make_stages(study, mlm_draws=2, mlm_probability=0.3)
    scored = stages.score_pretrained(mask).importance
    model = load_masked_language_model(stages.spec.checkpoint)
    tokenizer = load_tokenizer(stages.spec.checkpoint)
    batches = [
        mask_tokens(batch, rows, tokenizer, 0.3, stages.spec.seed, draw)
        for draw in range(2)
        for rows, batch in iterate(stages)
    ]
    assert_close(scored, measure(model, batches, word_losses, mask))


def test_a_probed_score_is_that_of_the_pretrained_body_under_its_own_head(
    body_study: TinyStudy,
) -> None:
    stages = make_stages(body_study)
    scored = stages.score_pretrained(MASK).importance
    probed = load(stages, stages.probe())
    batches = [batch for _, batch in iterate(stages)]
    assert_close(scored, measure(probed, batches, class_losses, MASK))
    fresh, _ = load_classifier(stages.spec.checkpoint, 2, stages.spec.seed)
    for name, value in fresh.state_dict().items():
        is_body = name.startswith(("bert.embeddings", "bert.encoder"))
        assert torch.equal(probed.state_dict()[name], value) is is_body, name


@pytest.mark.parametrize("fixture", ["study", "body_study"])
def test_a_task_head_score_puts_the_finetuned_head_on_the_pretrained_body(
    request: pytest.FixtureRequest, fixture: str
) -> None:
    stages = make_stages(request.getfixturevalue(fixture), pretrained_objective="task_head")
    scored = stages.score_pretrained(MASK).importance
    model, finetuned = load(stages, stages.rewind(0.0)), load(stages, stages.dense().weights)
    model.classifier = finetuned.classifier
    model.bert.pooler = finetuned.bert.pooler
    batches = [batch for _, batch in iterate(stages)]
    expected = measure(model, batches, class_losses, MASK)
    assert_close(scored, expected)
    other = measure(finetuned, batches, class_losses, MASK)
    assert not np.allclose(scored["head"], other["head"], rtol=1e-3)


def test_a_score_of_numbers(degree_study: TinyStudy) -> None:
    stages = make_stages(degree_study)
    weights = stages.dense().weights
    scored = stages.score_finetuned(Ticket(1, 0.5, MASK, weights)).importance
    batches = [batch for _, batch in iterate(stages)]
    assert_close(scored, measure(load(stages, weights), batches, number_losses, MASK))


@pytest.mark.parametrize("estimator", list(Estimator))
@pytest.mark.parametrize("criterion", [Criterion.ABS_GRADIENT, Criterion.FISHER])
def test_criterion_and_estimator_are_those_of_the_settings(
    study: TinyStudy, criterion: Criterion, estimator: Estimator
) -> None:
    stages = make_stages(study, criterion=criterion, estimator=estimator, batch_size=16)
    scored = stages.score_finetuned(stages.dense()).importance
    batches = [batch for _, batch in iterate(stages, batch_size=16)]
    model = load(stages, stages.dense().weights)
    expected = measure(model, batches, class_losses, DENSE, criterion, estimator)
    assert_close(scored, expected)


def test_batches_do_not_change_a_score_by_example(study: TinyStudy) -> None:
    scores = []
    for size in (7, 32):
        stages = make_stages(study, batch_size=size)
        scores.append(stages.score_finetuned(stages.dense()).importance)
    assert_close(scores[0], scores[1])


@pytest.mark.parametrize("mask", [DENSE, MASK], ids=["dense", "some"])
def test_a_magnitude_is_that_of_the_dense_model(study: TinyStudy, mask: Mask) -> None:
    stages = make_stages(study, criterion="magnitude")
    weights = stages.dense().weights
    finetuned = stages.score_finetuned(Ticket(1, 0.5, mask, weights)).importance
    pretrained = stages.score_pretrained(mask).importance
    for scored, source in ((finetuned, weights), (pretrained, stages.rewind(0.0))):
        expected = measure_magnitude(load(stages, source))
        stacked = {kind: np.stack(expected[kind]) * mask[kind] for kind in UnitKind}
        assert_close(scored, Importance(stacked))


def test_a_random_score_follows_seed_and_mask(study: TinyStudy) -> None:
    def score(seed: int, mask: Mask) -> Importance:
        pruning = {"importance": {"criterion": "random"}}
        stages = study.make_stages(seed=seed, pruning=pruning)
        dense = stages.dense()
        return stages.score_finetuned(Ticket(0, 0.0, mask, dense.weights)).importance

    first = score(0, DENSE)
    assert len(np.unique(first["neuron"])) == SHAPE.num_layers * SHAPE.num_neurons
    np.testing.assert_array_equal(first["head"], score(0, DENSE)["head"])
    assert (first["head"] != score(0, MASK)["head"]).any()
    assert (first["head"] != score(1, DENSE)["head"]).any()


def test_masked_language_modelling_needs_a_head_of_the_checkpoints_own(
    body_study: TinyStudy,
) -> None:
    stages = make_stages(body_study, pretrained_objective="mlm")
    with pytest.raises(CheckpointError, match="needs the checkpoint's own MLM head"):
        stages.score_pretrained(DENSE)
    with pytest.raises(CheckpointError, match="use 'task_probe', 'task_head' or 'auto'"):
        load_masked_language_model(stages.spec.checkpoint)


def test_a_larger_sample_contains_a_smaller_one() -> None:
    small, large = sample_rows(100, 10, seed=3), sample_rows(100, 30, seed=3)
    assert large[:10] == small
    assert len(set(large)) == 30
    assert sorted(sample_rows(20, 512, seed=0)) == list(range(20))
    assert sample_rows(100, 10, seed=4) != small
