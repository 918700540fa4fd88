"""Mask files keep masks; a bad one is a MaskError of one line, and nothing of it is executed."""

from __future__ import annotations

import errno
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from distprune.core.mask import Mask
from distprune.core.mask_file import MAX_FILE_BYTES, MAX_HEADER_BYTES, SCHEMA
from distprune.core.units import UnitKind
from distprune.errors import MaskError, StorageError
from tests.core.mask_strategies import masks, shapes

MASK = Mask(
    {
        UnitKind.HEAD: np.array([[True, False, True], [False, False, False]]),
        UnitKind.NEURON: np.array([[True, False], [True, True]]),
    },
    {"checkpoint": "bert", "metrics": {"accuracy": 0.9}, "lineage": ["a", "b"]},
)
HEADER = {SCHEMA: "{}"}
PIXELS = np.ones((2, 3), dtype=np.uint8)


def tensor_file(header: dict[str, str] | None = HEADER, **tensors: np.ndarray) -> bytes:
    return bytes(save({"head": PIXELS, "neuron": PIXELS, **tensors}, metadata=header))


def raw_file(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def raw_tensors(dtype: str, size: int, **metadata: str) -> bytes:
    """Two 1 x 1 tensors of any type that safetensors knows."""
    entry = {"dtype": dtype, "shape": [1, 1]}
    header: dict[str, Any] = {
        "__metadata__": {**HEADER, **metadata},
        "head": {**entry, "data_offsets": [0, size]},
        "neuron": {**entry, "data_offsets": [size, 2 * size]},
    }
    return raw_file(header, b"\1" * (2 * size))


def load_error(path: Path) -> str:
    with pytest.raises(MaskError) as caught:
        Mask.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@given(shape=shapes, data=st.data())
def test_round_trip(
    shape: Any, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mask = data.draw(masks(shape))
    path = tmp_path_factory.mktemp("masks") / "mask.safetensors"
    mask.save(path)
    assert Mask.load(path) == mask


def test_metadata_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "mask.safetensors"
    MASK.save(str(path))
    loaded = Mask.load(str(path))
    assert loaded == MASK
    assert loaded.metadata == MASK.metadata
    assert not loaded["head"].flags.writeable
    with pytest.raises(TypeError):
        loaded.metadata["checkpoint"] = "changed"  # type: ignore[index]


def test_file_is_plain_safetensors(tmp_path: Path) -> None:
    MASK.save(tmp_path / "mask.safetensors")
    with safe_open(tmp_path / "mask.safetensors", framework="numpy") as file:
        assert list(file.metadata()) == ["distprune.mask/1"]
        assert file.get_tensor("head").tolist() == [[1, 0, 1], [0, 0, 0]]


def test_equal_masks_are_equal_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        Mask(dict(MASK.kept), dict(reversed(MASK.metadata.items()))).save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    content = tensor_file()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        load_error(path)


def test_no_flipped_header_byte_crashes(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    content = tensor_file()
    header_size = len(content) - 2 * PIXELS.size
    messages = []
    for position in range(header_size):
        flipped = bytes([content[position] ^ 0x15])
        path.write_bytes(content[:position] + flipped + content[position + 1 :])
        try:
            Mask.load(path)
        except MaskError as error:
            messages.append(str(error))
    # A flipped space of the padding may leave a file that is well formed.
    assert len(messages) > 0.9 * header_size
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (struct.pack("<Q", 1 << 62) + b"{}", "truncated"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1) + b" " * (MAX_HEADER_BYTES + 1), "truncated"),
        (pickle.dumps({"head": PIXELS}), "truncated"),
        (b"\xff\xd8\xff\xe0" * 100, "truncated"),
        (raw_file(b"\xff\xfe{}"), "damaged"),
        (raw_file(b"[" * 100_000), "damaged"),
        (raw_file(3), "damaged"),
        (raw_file({"__metadata__": 3}), "damaged"),
        (raw_file({"__metadata__": {"schema": 1}}), "damaged"),
        (raw_tensors("BF16", 2), "damaged"),
        (raw_tensors("F8_E4M3", 1), "damaged"),
        (raw_file({"__metadata__": None}), "schema none"),
        (tensor_file(None), "schema none"),
        (tensor_file({"distprune.mask/2": "{}"}), "schema distprune.mask/2"),
        (tensor_file({SCHEMA: "no JSON"}), "incomplete"),
        (tensor_file({SCHEMA: "{"}), "incomplete"),
        (tensor_file({SCHEMA: "[" * 100_000}), "incomplete"),
        (tensor_file({SCHEMA: "[1]"}), "metadata is no JSON object"),
        (bytes(save({"head": PIXELS}, metadata=HEADER)), "incomplete"),
        (tensor_file(head=PIXELS * 2), "head holds values other than 0 and 1"),
        (tensor_file(neuron=PIXELS * 255), "neuron holds values other than 0 and 1"),
        (tensor_file(head=PIXELS.astype(np.float32)), "head holds values other than"),
        (tensor_file(head=PIXELS.astype(np.bool_)), "head holds values other than"),
        (tensor_file(head=PIXELS[0]), "1 dimensions"),
        (tensor_file(head=PIXELS[:1]), "same number of layers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    path.write_bytes(content)
    assert message in load_error(path)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickle_is_not_executed(tmp_path: Path) -> None:
    trace, path = tmp_path / "executed", tmp_path / "mask.safetensors"
    content = pickle.dumps(Payload(trace))
    pickle.loads(content)
    assert trace.exists()
    trace.unlink()
    for prefix in (b"", struct.pack("<Q", len(content))):
        path.write_bytes(prefix + content)
        load_error(path)
    assert not trace.exists()


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert "No such file" in load_error(tmp_path / "none.safetensors")
    assert "directory" in load_error(tmp_path)


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert "no mask is that large" in load_error(path)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failing_write_leaves_the_old_mask(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mask.safetensors"
    MASK.save(path)

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    narrower = Mask({kind: MASK[kind] & False for kind in UnitKind})
    with monkeypatch.context() as patch:
        patch.setattr(os if step == "fsync" else Path, step, fail)
        with pytest.raises(StorageError, match="No space left on device"):
            narrower.save(path)
    assert Mask.load(path) == MASK
    assert [each.name for each in tmp_path.iterdir()] == ["mask.safetensors"]
