"""Stability: what agrees, what is chance, and the file that keeps it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distprune.core.agreement import expect_overlap
from distprune.core.mask import Mask
from distprune.core.mixing import MixingOperator, mix
from distprune.core.selection import select
from distprune.core.units import UnitKind
from distprune.errors import StorageError
from distprune.library.initial_scores import InitialScores, measure_scores
from distprune.library.replication import seed_stages
from distprune.library.stability import (
    COEFFICIENTS,
    compare_masks,
    locate_stability,
    measure_stability,
    read_stability,
    write_stability,
)
from distprune.library.study_folder import StudyFolder
from distprune.store.store import Store
from distprune.trial.stages import TrialStages
from tests.core.mask_strategies import make_mask
from tests.tiny_study import SHAPE
from tests.trial.canned import make_pruning, make_stages

SEEDS = (1, 2, 3)
MILESTONES = (0.25, 0.5)


@pytest.fixture
def stages(tmp_path: Path) -> TrialStages:
    return make_stages(Store(str(tmp_path / "store")), pruning=make_pruning())


@pytest.fixture
def scores(stages: TrialStages) -> list[InitialScores]:
    return [measure_scores(seed_stages(stages, stages.spec, seed)) for seed in SEEDS]


def test_shapes_and_bounds(stages: TrialStages, scores: list[InitialScores]) -> None:
    found = measure_stability(stages, 7, scores, MILESTONES)
    assert (found.trial, found.seeds, found.coefficients) == (7, SEEDS, COEFFICIENTS)
    assert [masks.milestone for masks in found.masks] == list(MILESTONES)
    for kind in UnitKind:
        assert found.score_agreement[kind].shape == (len(COEFFICIENTS), SHAPE.num_layers)
        for masks in found.masks:
            assert masks.across_seeds[kind].shape == (len(COEFFICIENTS), SHAPE.num_layers)
            assert masks.across_coefficients[kind].shape == (len(SEEDS), SHAPE.num_layers)
            values = (masks.across_seeds[kind], masks.across_coefficients[kind])
            assert all(((v >= 0) & (v <= 1)).all() for v in values)


def test_masks_are_those_that_the_method_would_select(
    stages: TrialStages, scores: list[InitialScores]
) -> None:
    pruning, dense = stages.spec.pruning, Mask.dense(SHAPE)
    rule = pruning.selection_rule(stages.num_tokens)
    masks = [
        [
            select(
                mix(
                    scored.pretrained,
                    scored.finetuned,
                    dense,
                    MixingOperator.CONVEX,
                    coefficient,
                    pruning.importance.normalisation,
                ),
                dense,
                SHAPE,
                0.5,
                rule,
            )
            for scored in scores
        ]
        for coefficient in COEFFICIENTS
    ]
    found = measure_stability(stages, 7, scores, (0.5,)).masks[0]
    expected = compare_masks(0.5, masks)
    for kind in UnitKind:
        np.testing.assert_array_equal(found.across_seeds[kind], expected.across_seeds[kind])
        np.testing.assert_array_equal(
            found.across_coefficients[kind], expected.across_coefficients[kind]
        )
        assert found.chance[kind] == pytest.approx(expect_overlap(masks[0][0])[kind])


def test_equal_scores_agree_wholly(stages: TrialStages, scores: list[InitialScores]) -> None:
    same = [InitialScores(seed, scores[0].pretrained, scores[0].finetuned) for seed in SEEDS]
    found = measure_stability(stages, 7, same, MILESTONES)
    for kind in UnitKind:
        np.testing.assert_allclose(found.score_agreement[kind], 1.0)
        for masks in found.masks:
            np.testing.assert_array_equal(masks.across_seeds[kind], 1.0)
    one_source = [InitialScores(s.seed, s.finetuned, s.finetuned) for s in scores]
    found = measure_stability(stages, 7, one_source, MILESTONES)
    for kind in UnitKind:
        for masks in found.masks:
            np.testing.assert_array_equal(masks.across_coefficients[kind], 1.0)


def test_comparison_by_hand() -> None:
    left, right = make_mask([[1, 0]], [[1, 1]]), make_mask([[0, 1]], [[1, 1]])
    # λ = 0 finds left with both seeds, λ = 1 left with the first and right with the second.
    found = compare_masks(0.5, [[left, left], [left, right]])
    np.testing.assert_array_equal(found.across_seeds[UnitKind.HEAD], [[1.0], [0.0]])
    np.testing.assert_array_equal(found.across_coefficients[UnitKind.HEAD], [[1.0], [0.0]])
    np.testing.assert_array_equal(found.across_seeds[UnitKind.NEURON], 1.0)
    assert found.chance == {UnitKind.HEAD: pytest.approx(0.5), UnitKind.NEURON: 1.0}


def test_one_seed_has_nothing_to_agree_with(
    stages: TrialStages, scores: list[InitialScores]
) -> None:
    with pytest.raises(ValueError, match="two at least"):
        measure_stability(stages, 7, scores[:1], MILESTONES)


def test_what_is_written_is_read_again(
    stages: TrialStages, scores: list[InitialScores], tmp_path: Path
) -> None:
    folder = StudyFolder(tmp_path, "mine")
    assert read_stability(folder) is None
    stability = measure_stability(stages, 7, scores, MILESTONES)
    write_stability(folder, stability)
    found = read_stability(folder)
    assert found is not None
    assert (found.trial, found.seeds, found.coefficients) == (7, SEEDS, COEFFICIENTS)
    for kind in UnitKind:
        np.testing.assert_array_equal(found.score_agreement[kind], stability.score_agreement[kind])
        for one, other in zip(found.masks, stability.masks, strict=True):
            np.testing.assert_array_equal(one.across_seeds[kind], other.across_seeds[kind])
            assert one.chance[kind] == other.chance[kind]


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "x"}'])
def test_damaged_file(text: str, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "mine")
    locate_stability(folder).parent.mkdir(parents=True)
    locate_stability(folder).write_text(text)
    with pytest.raises(StorageError, match="run `distprune confirm` again"):
        read_stability(folder)
