"""From a level's lineage to its figure, through a real store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distprune.core.importance_scores import Importance, Normalisation, normalise
from distprune.core.mask import Mask
from distprune.core.mixing import MixingOperator, mix
from distprune.core.units import UnitKind
from distprune.errors import StorageError
from distprune.report import level_evidence
from distprune.report.level_evidence import draw_level
from distprune.store.key import content_key
from distprune.store.store import Store
from tests.report.pictures import read_size
from tests.tracking.events import SHAPE, make_level, make_mask, start_trial

PREVIOUS = make_mask(0.25)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def put_scores(store: Store, seed: int) -> tuple[str, Importance]:
    """Store made up scores as a `score` stage does; return their key and what they are."""
    from safetensors.numpy import save_file

    generator = np.random.default_rng(seed)
    shapes = {kind: (SHAPE.num_layers, SHAPE.units_per_layer(kind)) for kind in UnitKind}
    scores = {str(kind): generator.random(shapes[kind], dtype=np.float32) for kind in UnitKind}
    key = content_key(["made up", seed])
    store.commit(key, lambda folder: save_file(scores, folder / "importance.safetensors"), {})
    return key, Importance(scores)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What reached the drawing of the figure."""
    calls: list[tuple[Any, ...]] = []
    draw = level_evidence.draw_importance

    def spy(*arguments: Any) -> bytes:
        calls.append(arguments)
        return draw(*arguments)

    monkeypatch.setattr(level_evidence, "draw_importance", spy)
    return calls


def test_scores_are_read_normalised_and_mixed(store: Store, drawn: list[tuple[Any, ...]]) -> None:
    pretrained_key, pretrained = put_scores(store, 0)
    finetuned_key, finetuned = put_scores(store, 1)
    level = make_level(
        *(2, 0.5, 0.7),
        pretrained_key=pretrained_key,
        finetuned_key=finetuned_key,
        pretrained_objective="mlm",
    )
    start = start_trial(mixing={"operator": "convex", "coefficient": 0.25})
    width, height = read_size(draw_level(store, start, level, PREVIOUS))
    assert width > height > 300
    ((sources, mixed, before, after, title),) = drawn
    assert list(sources) == ["pre-trained (mlm)", "fine-tuned"]
    for shown, raw in zip(sources.values(), (pretrained, finetuned), strict=True):
        assert_equal(shown, normalise(raw, PREVIOUS, Normalisation.L2))
    expected = mix(pretrained, finetuned, PREVIOUS, MixingOperator.CONVEX, 0.25, Normalisation.L2)
    assert_equal(mixed, expected)
    assert (before, after) == (PREVIOUS, level.mask)
    assert title.startswith("Trial 0, level 2: sparsity 0.5, metric 0.7\n")
    assert "convex, λ = 0.25" in title


def assert_equal(first: Importance, second: Importance) -> None:
    for kind in UnitKind:
        np.testing.assert_array_equal(first[kind], second[kind])


def test_source_without_key_takes_no_part(store: Store, drawn: list[tuple[Any, ...]]) -> None:
    key, finetuned = put_scores(store, 1)
    start = start_trial(mixing={"operator": "finetuned"})
    draw_level(store, start, make_level(1, 0.25, 0.8, finetuned_key=key), Mask.dense(SHAPE))
    ((sources, mixed, *_, title),) = drawn
    assert sources["pre-trained"] is None
    assert_equal(mixed, sources["fine-tuned"])
    assert_equal(mixed, normalise(finetuned, Mask.dense(SHAPE), Normalisation.L2))
    assert "λ" not in title


def test_random_scores_are_called_so(store: Store, drawn: list[tuple[Any, ...]]) -> None:
    key, scores = put_scores(store, 1)
    start = start_trial(importance={"criterion": "random"})
    draw_level(store, start, make_level(1, 0.25, 0.8, finetuned_key=key), Mask.dense(SHAPE))
    ((sources, mixed, *_, title),) = drawn
    assert list(sources) == ["pre-trained", "random"]
    assert_equal(sources["random"], scores)
    assert_equal(mixed, scores)
    assert title.endswith("\nrandom scores, higher = keep")


def test_scores_that_are_gone(store: Store) -> None:
    level = make_level(1, 0.25, 0.8, finetuned_key="a" * 64)
    start = start_trial(mixing={"operator": "finetuned"})
    with pytest.raises(StorageError, match=r"scores aaaaaaaaaaaa: not in .* any more"):
        draw_level(store, start, level, Mask.dense(SHAPE))
