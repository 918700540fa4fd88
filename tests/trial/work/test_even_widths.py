"""Even widths: the same model to whoever computes with it, and what it was afterwards."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from distprune.core.anatomy import describe_anatomy
from distprune.core.compaction import compact
from distprune.core.importance import measure_importance
from distprune.core.importance_scores import Criterion, Estimator
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.methods.ticket import Ticket
from distprune.models.checkpoint import load_classifier
from distprune.tasks.prepared import PreparedTask
from distprune.trial.work import even_widths as module
from distprune.trial.work.even_widths import even_widths
from distprune.trial.work.score import _leave_out_added
from tests.model_families import CONFIGS, SHAPE, build_classifier, compute_logits, sample_batch
from tests.trial.studies import TinyStudy, keep
from tests.trial.work.test_same_results import RECIPE, TOLERANCE, load_without_dropout, predict
from tests.trial.work.test_training import open_task, run


@pytest.fixture(autouse=True)
def multiple(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit the multiple to the tiny models."""
    monkeypatch.setattr(module, "MULTIPLE", 8)


@pytest.fixture
def task(study: TinyStudy) -> PreparedTask:
    return open_task(study)


def widths(model: Any) -> tuple[int, ...]:
    return describe_anatomy(model).counts(UnitKind.NEURON)


def keep_neurons(*counts: int) -> Mask:
    """Keep all heads, and so many neurons of each layer of a tiny model of a family."""
    dense = Mask.dense(SHAPE)
    neurons = dense[UnitKind.NEURON].copy()
    for row, count in zip(neurons, counts, strict=True):
        row[count:] = False
    return Mask({UnitKind.HEAD: dense[UnitKind.HEAD], UnitKind.NEURON: neurons})


def test_widths_are_rounded_up_to_the_dense_one_at_most() -> None:
    mask = keep_neurons(3, 16, 19)
    model = compact(build_classifier("bert"), mask)
    before = copy.deepcopy(model.state_dict())
    with even_widths(model, mask):
        assert widths(model) == (8, 16, 20)
    assert widths(model) == (3, 16, 19)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_layer_without_neurons_stays_without() -> None:
    mask = keep_neurons(0, 5, 20)
    model = compact(build_classifier("bert"), mask)
    with even_widths(model, mask):
        assert widths(model) == (0, 8, 20)


def test_dense_model_stays_as_it_is() -> None:
    model = build_classifier("bert")
    parameters = list(model.parameters())
    with even_widths(model, Mask.dense(SHAPE)):
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))


def test_activation_that_is_not_silent_at_zero_is_left_alone() -> None:
    model = build_classifier("bert")
    model.config.hidden_act = "sigmoid"
    mask = keep_neurons(3, 16, 19)
    smaller = compact(model, mask)
    with even_widths(smaller, mask):
        assert widths(smaller) == (3, 16, 19)


@pytest.mark.parametrize("family", CONFIGS)
def test_outputs_and_importance_are_the_same(family: str) -> None:
    mask = keep_neurons(3, 11, 18)
    model = compact(build_classifier(family), mask).eval()
    batch = sample_batch(family)

    def measure() -> Any:
        def losses(model: Any, batch: Any) -> torch.Tensor:
            logits: torch.Tensor = model(**batch).logits
            return logits.square().sum(-1)

        return measure_importance(model, [batch], losses, Criterion.ABS_GRADIENT, Estimator.EXAMPLE)

    expected, measured = compute_logits(model, batch), measure()
    with even_widths(model, mask):
        logits, wide = compute_logits(model, batch), measure()
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert [len(scores) for scores in wide[UnitKind.NEURON]] == [8, 16, 20]
    for scores, count in zip(wide[UnitKind.NEURON], (3, 11, 18), strict=True):
        assert not scores[count:].any()
    for kind, layers in _leave_out_added(wide, mask).items():
        for scores, others in zip(layers, measured[kind], strict=True):
            np.testing.assert_allclose(scores, others, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_training_is_the_same_and_added_neurons_learn_nothing(
    study: TinyStudy, task: PreparedTask, weight_decay: float
) -> None:
    mask = keep(5, 17)
    narrow = compact(load_without_dropout(study), mask)
    wide = copy.deepcopy(narrow)
    counts = widths(narrow)
    assert any(count % 8 for count in counts)
    run(narrow, study, task, weight_decay=weight_decay, **RECIPE)
    with even_widths(wide, mask):
        run(wide, study, task, weight_decay=weight_decay, **RECIPE)
        for part, count in zip(describe_anatomy(wide).parts, counts, strict=True):
            assert not part.first.weight[count:].any()
            assert not part.first.bias[count:].any()
            assert not part.second.weight[:, count:].any()
    assert widths(wide) == counts
    torch.testing.assert_close(
        predict(wide, study, task), predict(narrow, study, task), rtol=0, atol=TOLERANCE
    )


def test_frozen_parameters_stay_frozen(study: TinyStudy) -> None:
    mask = keep(5, 17)
    model = compact(load_classifier(str(study.checkpoint), 2, seed=0)[0], mask)
    model.requires_grad_(False)
    with even_widths(model, mask):
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_stages_compute_with_even_widths(study: TinyStudy) -> None:
    """Scores, retraining and evaluation; no layer of theirs has an uneven width."""
    mask = keep(5, 17)
    own = set(mask[UnitKind.NEURON].sum(1).tolist())
    even = {module._round_up(width, mask[UnitKind.NEURON].shape[1]) for width in own}
    odd = own - even
    assert odd
    stages = study.make_stages()
    start = stages.rewind(0.0)
    seen: set[int] = set()

    def note(layer: torch.nn.Module, inputs: Any) -> None:
        if isinstance(layer, torch.nn.Linear):
            seen.add(layer.in_features)

    def watch(stage: Any) -> Any:
        seen.clear()
        result = stage()
        assert even <= seen
        assert odd.isdisjoint(seen)
        return result

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        weights = watch(lambda: stages.retrain(start, mask))
        watch(lambda: stages.evaluate_weights(weights, mask, "search"))
        watch(lambda: stages.score_finetuned(Ticket(0, 0.0, mask, weights)))
    finally:
        hook.remove()
