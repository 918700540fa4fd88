from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from distprune.core.compaction import compact
from distprune.core.mask import Mask
from distprune.tasks.prepared import PreparedTask
from distprune.tasks.spec import TaskSpec
from distprune.trial.stages import METRICS_FILE, TrialStages
from distprune.trial.work.weights import load_model
from tests.tiny_study import SHAPE
from tests.trial.studies import TinyStudy, keep, weights_path


@pytest.fixture(scope="module")
def stages(study: TinyStudy) -> TrialStages:
    return study.make_stages()


@pytest.mark.parametrize("split", ["search", "report"])
@pytest.mark.parametrize("mask", [Mask.dense(SHAPE), keep(3, 20)], ids=["dense", "compact"])
def test_outputs_are_those_of_each_row_alone(stages: TrialStages, mask: Mask, split: str) -> None:
    weights = stages.dense().weights
    evaluation = stages.evaluate_weights(weights, mask, split)
    entry = stages.store.find(evaluation.key)
    prepared = stages.store.find(stages.context.prepared)
    assert entry is not None
    assert prepared is not None
    outputs = load_file(entry.path("outputs.safetensors"))
    task = PreparedTask.open(prepared.path("facts.json").parent)
    rows = task.split(split)  # type: ignore[arg-type]
    model = load_model(weights_path(stages.store, weights), stages.spec.checkpoint, 2, None)
    model = compact(model, mask).eval()
    with torch.no_grad():
        alone = [
            model(input_ids=torch.tensor([ids])).logits[0].numpy() for ids in rows["input_ids"]
        ]
    np.testing.assert_allclose(outputs["logits"], np.stack(alone), atol=1e-5)
    np.testing.assert_array_equal(outputs["labels"], rows["labels"])
    accuracy = (outputs["logits"].argmax(axis=1) == outputs["labels"]).mean()
    assert evaluation.metric == accuracy
    summary = json.loads(entry.path(METRICS_FILE).read_text())
    assert summary == {"metric": accuracy, "name": "accuracy", "examples": len(rows)}


def test_a_metric_for_which_lower_is_better(degree_study: TinyStudy) -> None:
    task = TaskSpec(dataset=str(degree_study.dataset), max_length=16, metric="mean_squared_error")
    stages = degree_study.make_stages(task=task)
    assert not stages.context.task.higher_is_better
    evaluation = stages.evaluate(stages.dense())
    entry = stages.store.find(evaluation.key)
    assert entry is not None
    outputs = load_file(entry.path("outputs.safetensors"))
    assert outputs["logits"].shape == (40, 1)
    expected = np.square(outputs["logits"][:, 0].astype(float) - outputs["labels"]).mean()
    assert evaluation.metric == pytest.approx(expected)


def test_precision_is_that_of_the_trial(study: TinyStudy, stages: TrialStages) -> None:
    weights, mask = stages.dense().weights, Mask.dense(SHAPE)
    fast = replace(stages, context=replace(stages.context, precision="bfloat16"))
    outputs = []
    for variant in (stages, fast):
        entry = study.store.find(variant.evaluate_weights(weights, mask, "search").key)
        assert entry is not None
        outputs.append(load_file(entry.path("outputs.safetensors"))["logits"])
    assert (outputs[0] != outputs[1]).any()
    np.testing.assert_allclose(outputs[0], outputs[1], atol=0.1)
