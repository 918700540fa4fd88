"""Masks are immutable values with a digest, a text form and equality."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune import Mask, UnitKind
from distprune.core.units import EncoderShape
from distprune.errors import MaskError
from tests.core.mask_strategies import masks, narrow, shapes

SHAPE = EncoderShape(num_layers=2, num_heads=3, num_neurons=5, hidden_size=12, head_size=4)
HEADS = np.array([[True, False, True], [False, False, False]])
NEURONS = np.ones((2, 5), dtype=np.bool_)


def make_mask() -> Mask:
    return Mask({UnitKind.HEAD: HEADS, UnitKind.NEURON: NEURONS})


def test_arrays_are_read_only_and_not_shared() -> None:
    heads = HEADS.copy()
    mask = Mask({UnitKind.HEAD: heads, UnitKind.NEURON: NEURONS})
    heads[1, 1] = True
    assert not mask["head"][1, 1]
    with pytest.raises(ValueError, match="read-only"):
        mask["head"][0, 0] = False
    with pytest.raises(TypeError):
        mask.kept[UnitKind.HEAD] = heads  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        mask.kept = {}  # type: ignore[misc]


def test_metadata_is_not_shared_and_read_only() -> None:
    metadata = {"checkpoint": "bert"}
    mask = Mask({UnitKind.HEAD: HEADS, UnitKind.NEURON: NEURONS}, metadata)
    other = mask.with_metadata({"checkpoint": "roberta"})
    metadata["checkpoint"] = "changed"
    assert mask.metadata == {"checkpoint": "bert"}
    assert other.metadata == {"checkpoint": "roberta"}
    assert other == mask
    assert other.digest == mask.digest
    with pytest.raises(TypeError):
        mask.metadata["checkpoint"] = "changed"  # type: ignore[index]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda mask: pickle.loads(pickle.dumps(mask))])
def test_copies_are_equal_and_read_only(copied: Callable[[Mask], Mask]) -> None:
    mask = make_mask().with_metadata({"level": 3})
    other = copied(mask)
    assert other == mask
    assert other.metadata == {"level": 3}
    assert not other["head"].flags.writeable


def test_counts_and_sparsity() -> None:
    mask = make_mask()
    assert (mask.num_layers, mask.num_kept("head"), mask.num_kept("neuron")) == (2, 2, 10)
    assert mask.sparsity("head") == pytest.approx(4 / 6)
    assert mask.sparsity(UnitKind.NEURON) == 0.0
    assert Mask.dense(SHAPE).num_kept("head") == 6


def test_fit_tells_layers_from_heads() -> None:
    assert make_mask().matches(SHAPE)
    swapped = EncoderShape(num_layers=3, num_heads=2, num_neurons=5, hidden_size=12, head_size=6)
    assert not make_mask().matches(swapped)
    assert not make_mask().matches(dataclasses.replace(SHAPE, num_neurons=6))


@given(shape=shapes, data=st.data())
def test_packing_is_lossless(shape: EncoderShape, data: st.DataObject) -> None:
    mask = data.draw(masks(shape))
    packed = mask.pack()
    assert "\n" not in packed
    unpacked = Mask.unpack(packed)
    assert unpacked == mask
    assert (unpacked.pack(), unpacked.digest, hash(unpacked)) == (packed, mask.digest, hash(mask))


@given(shape=shapes, data=st.data())
def test_digest_tells_masks_apart(shape: EncoderShape, data: st.DataObject) -> None:
    first, second = data.draw(masks(shape)), data.draw(masks(shape))
    assert (first == second) == (first.digest == second.digest)
    kept = {kind: first[kind].copy() for kind in UnitKind}
    kept[UnitKind.NEURON][-1, -1] ^= True
    assert Mask(kept) != first
    assert Mask(kept).digest != first.digest


def test_digest_knows_shapes() -> None:
    wide, tall = np.ones((2, 6), np.bool_), np.ones((3, 4), np.bool_)
    first = Mask(dict.fromkeys(UnitKind, wide))
    second = Mask(dict.fromkeys(UnitKind, tall))
    assert first != second
    assert first.digest != second.digest


def test_digest_is_pinned() -> None:
    # Stage keys hold it: another digest of the same mask would lose every stored result.
    assert make_mask().pack() == "2x3:oA==|2x5:/8A="
    assert make_mask().digest == (
        "8cfa9d2410f1e1b9739802b1fd3d778bdb8ea89cc36692cea1673723cfecc036"
    )


def test_mask_is_no_other_type() -> None:
    assert make_mask() != "mask"
    assert len({make_mask(), make_mask()}) == 1


@given(shape=shapes, data=st.data())
def test_within(shape: EncoderShape, data: st.DataObject) -> None:
    first, second = data.draw(masks(shape)), data.draw(masks(shape))
    both = narrow(first, second)
    assert both.is_within(first)
    assert both.is_within(second)
    assert first.is_within(second) == (both == first)
    assert first.is_within(Mask.dense(shape))


def test_within_needs_the_same_shape() -> None:
    assert not Mask.dense(SHAPE).is_within(Mask.dense(dataclasses.replace(SHAPE, num_heads=4)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2x3:oA==",
        "2x3:oA==|2x5:/8A=|1x1:gA==",
        "2x3:|2x5:/8A=",
        "2x3:oAAA|2x5:/8A=",
        "2x3:o!==|2x5:/8A=",
        "2x3|2x5",
        "axb:oA==|2x5:/8A=",
        "-2x3:oA==|2x5:/8A=",
        "999999999x999999999:oA==|2x5:/8A=",
        "3x2:oA==|2x5:/8A=",
    ],
)
def test_text_that_is_no_mask_is_refused(text: str) -> None:
    with pytest.raises(MaskError) as caught:
        Mask.unpack(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("heads", "neurons", "message"),
    [
        (HEADS.astype(np.uint8), NEURONS, "uint8 array of 2 dimensions; it must be bool"),
        (HEADS[0], NEURONS, "bool array of 1 dimensions"),
        (HEADS, NEURONS[:1], "same number of layers"),
    ],
)
def test_arrays_that_are_no_mask_are_refused(
    heads: np.ndarray, neurons: np.ndarray, message: str
) -> None:
    with pytest.raises(MaskError, match=message):
        Mask({UnitKind.HEAD: heads, UnitKind.NEURON: neurons})


def test_every_kind_is_needed() -> None:
    with pytest.raises(MaskError, match=r"unit kinds \['head'\]"):
        Mask({UnitKind.HEAD: HEADS})
