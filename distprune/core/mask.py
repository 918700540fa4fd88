"""The mask: which units of a dense encoder are kept. Immutable; along a trial it only shrinks."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import MaskError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Mask:
    """Which heads and neurons are kept.

    Attributes:
        kept: For each unit kind a bool array [layer, unit], True = kept. Read-only.
        metadata: What is known about the mask's origin (checkpoint, metrics, lineage); it takes no
            part in equality.
    """

    kept: Mapping[UnitKind, BoolArray]
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if set(self.kept) != set(UnitKind):
            kinds = sorted(str(kind) for kind in self.kept)
            raise MaskError(f"mask: unit kinds {kinds}; it must have exactly head and neuron")
        frozen: dict[UnitKind, BoolArray] = {}
        for kind in UnitKind:
            array = np.array(self.kept[kind])
            if array.ndim != 2 or array.dtype != np.bool_:
                raise MaskError(
                    f"mask[{kind}]: {array.dtype} array of {array.ndim} dimensions; "
                    "it must be bool [layer, unit]"
                )
            array.flags.writeable = False
            frozen[kind] = array
        if len(frozen[UnitKind.HEAD]) != len(frozen[UnitKind.NEURON]):
            raise MaskError("mask: heads and neurons must have the same number of layers")
        object.__setattr__(self, "kept", MappingProxyType(frozen))
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    @classmethod
    def dense(cls, shape: EncoderShape) -> Mask:
        """Keep every unit of an encoder of this shape."""
        return cls(
            {
                kind: np.ones((shape.num_layers, shape.units_per_layer(kind)), dtype=np.bool_)
                for kind in UnitKind
            }
        )

    @classmethod
    def load(cls, path: str | Path) -> Mask:
        """Read a mask file; see `distprune.core.mask_file`."""
        from distprune.core.mask_file import load_mask

        return load_mask(Path(path))

    def save(self, path: str | Path) -> None:
        """Write a mask file, whole or not at all; see `distprune.core.mask_file`."""
        from distprune.core.mask_file import save_mask

        save_mask(self, Path(path))

    def gate(self, model: nn.Module) -> AbstractContextManager[None]:
        """Apply the mask to a dense `model` inside a `with` block; the weights stay as they are."""
        from distprune.core.gating import gate

        return gate(model, self)

    def compact(self, model: nn.Module) -> nn.Module:
        """Return a copy of a dense `model` without the masked units; `model` stays as it is."""
        from distprune.core.compaction import compact

        return compact(model, self)

    def __getitem__(self, kind: UnitKind | str) -> BoolArray:
        return self.kept[UnitKind(kind)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return all(np.array_equal(self[kind], other[kind]) for kind in UnitKind)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[type[Mask], tuple[Any, ...]]:
        return Mask, (dict(self.kept), dict(self.metadata))

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self[UnitKind.HEAD])

    @property
    def digest(self) -> str:
        """SHA-256 over shapes and kept units, as hex; equal masks have equal digests."""
        return hashlib.sha256(self.pack().encode()).hexdigest()

    def matches(self, shape: EncoderShape) -> bool:
        """Say whether the mask was made for an encoder with these counts."""
        return all(
            self[kind].shape == (shape.num_layers, shape.units_per_layer(kind)) for kind in UnitKind
        )

    def num_kept(self, kind: UnitKind | str) -> int:
        """Count the kept units of `kind`."""
        return int(self[kind].sum())

    def sparsity(self, kind: UnitKind | str) -> float:
        """Return removed / total of the units of `kind`, in [0, 1]."""
        return 1.0 - self.num_kept(kind) / self[kind].size

    def is_within(self, other: Mask) -> bool:
        """Say whether every unit kept here is kept in `other` too."""
        return all(
            self[kind].shape == other[kind].shape and not (self[kind] & ~other[kind]).any()
            for kind in UnitKind
        )

    def with_metadata(self, metadata: Mapping[str, Any]) -> Mask:
        """Return the same mask with other metadata."""
        return Mask(self.kept, metadata)

    def pack(self) -> str:
        """Write the mask as a short line of text; `unpack` reads it."""
        parts = [
            f"{self[kind].shape[0]}x{self[kind].shape[1]}:"
            + base64.b64encode(np.packbits(self[kind]).tobytes()).decode()
            for kind in UnitKind
        ]
        return "|".join(parts)

    @classmethod
    def unpack(cls, text: str) -> Mask:
        """Read what `pack` wrote.

        Raises:
            MaskError: The text is no packed mask.
        """
        try:
            arrays = {
                kind: _unpack_array(part)
                for kind, part in zip(UnitKind, text.split("|"), strict=True)
            }
        except ValueError as error:
            raise MaskError(f"packed mask: {text[:40]!r} cannot be read ({error})") from error
        return cls(arrays)


def _unpack_array(part: str) -> BoolArray:
    dimensions, _, data = part.partition(":")
    layers, units = (int(size) for size in dimensions.split("x"))
    bits = np.frombuffer(base64.b64decode(data, validate=True), dtype=np.uint8)
    if min(layers, units) < 0 or len(bits) != math.ceil(layers * units / 8):
        raise ValueError(f"{len(bits)} bytes for {layers} x {units} units")
    return np.unpackbits(bits, count=layers * units).reshape(layers, units).astype(np.bool_)
