"""Retraining: from a snapshot, from a model that is compact already, with and without a teacher."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file

from distprune.core.anatomy import describe_anatomy
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.methods.ticket import WeightsReference
from distprune.trial.stages import WEIGHTS_FILE, TrialStages
from distprune.trial.work.weights import load_model
from tests.trial.studies import TinyStudy, hash_file, keep, weights_path

WIDE = keep(6, 30)
NARROW = Mask({kind: WIDE[kind] & keep(5, 25, seed=1)[kind] for kind in UnitKind})


def load(stages: TrialStages, weights: WeightsReference, mask: Mask | None = None) -> Any:
    return load_model(weights_path(stages.store, weights), stages.spec.checkpoint, 2, mask)


def test_the_stored_model_has_the_units_of_its_mask(study: TinyStudy) -> None:
    stages = study.make_stages()
    model = load(stages, stages.retrain(stages.rewind(0.0), NARROW))
    for kind in UnitKind:
        assert describe_anatomy(model).counts(kind) == tuple(NARROW[kind].sum(axis=1))


def test_a_compact_model_goes_on_from_where_it_was(study: TinyStudy) -> None:
    # So small a rate leaves the weights where the start had them.
    still = {"steps": 1, "learning_rate": 1e-12, "batch_size": 16, "weight_decay": 0.0}
    moving, frozen = study.make_stages(), study.make_stages(retraining=still)
    level = moving.retrain(moving.rewind(0.5), WIDE)
    assert level.file == WEIGHTS_FILE
    expected = load(moving, level, NARROW).state_dict()
    rewound = load(moving, moving.rewind(0.5), NARROW).state_dict()
    state = load(frozen, frozen.retrain(level, NARROW)).state_dict()
    for name, value in state.items():
        torch.testing.assert_close(value, expected[name], rtol=0.0, atol=1e-9)
    assert not torch.allclose(expected["classifier.weight"], rewound["classifier.weight"])


def test_an_entry_depends_on_its_request_alone(study: TinyStudy) -> None:
    stages = study.make_stages()
    first, second = (stages.retrain(stages.rewind(p), WIDE) for p in (0.0, 0.5))
    assert first.key != second.key
    hashes = {hash_file(weights_path(study.store, weights)) for weights in (first, second)}
    assert len(hashes) == 2


def test_a_teacher_leaves_its_mark(study: TinyStudy) -> None:
    plain = study.make_stages()
    taught = study.make_stages(retraining={"distillation": {"weight": 0.5}})
    teacher = hash_file(weights_path(study.store, plain.dense().weights))
    states = [load(s, s.retrain(s.rewind(0.0), WIDE)).state_dict() for s in (plain, taught)]
    assert not torch.equal(states[0]["classifier.weight"], states[1]["classifier.weight"])
    assert hash_file(weights_path(study.store, plain.dense().weights)) == teacher


def test_frozen_embeddings_are_those_of_the_checkpoint(study: TinyStudy) -> None:
    stages = study.make_stages(retraining={"freeze": ["embeddings"]})
    retrained = stages.retrain(stages.rewind(0.0), WIDE)
    stored = load_file(weights_path(study.store, retrained))
    assert not [name for name in stored if "embeddings" in name]
    start = load(stages, stages.rewind(0.0)).state_dict()
    state = load(stages, retrained).state_dict()
    frozen = [name for name in state if "embeddings" in name]
    assert frozen
    assert all(torch.equal(state[name], start[name]) for name in frozen)
