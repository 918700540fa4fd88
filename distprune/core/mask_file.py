"""The mask file: one safetensors file, its metadata as JSON in the header. Nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from distprune.core.atomic_file import write_file
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import MaskError

SCHEMA = "distprune.mask/1"
"""Name and version of the file's schema: the one key of the header, its value the metadata.

One key only, because safetensors writes several in random order; so equal masks are equal files.
"""

MAX_HEADER_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 28


def save_mask(mask: Mask, path: Path) -> None:
    """Write `mask` to `path`, whole or not at all.

    Raises:
        StorageError: The file cannot be written.
    """
    from safetensors.numpy import save

    tensors = {str(kind): mask[kind].astype(np.uint8) for kind in UnitKind}
    metadata = json.dumps(dict(mask.metadata), sort_keys=True)
    write_file(path, save(tensors, metadata={SCHEMA: metadata}))


def load_mask(path: Path) -> Mask:
    """Read the mask file at `path`.

    Raises:
        MaskError: The file is missing, truncated, no mask, or of another schema.
    """
    header, tensors = _read(path)
    if SCHEMA not in header:
        raise MaskError(
            f"mask file {path}: schema {', '.join(header) or 'none'}; this version reads {SCHEMA}; "
            "use a file that `distprune search` wrote"
        )
    try:
        kept = {kind: tensors[str(kind)] for kind in UnitKind}
        metadata = json.loads(header[SCHEMA])
    except (KeyError, ValueError, RecursionError) as error:
        raise MaskError(f"mask file {path}: incomplete ({error}); write it again") from error
    if not isinstance(metadata, dict):
        raise MaskError(f"mask file {path}: metadata is no JSON object; write it again")
    for kind, array in kept.items():
        if array.dtype != np.uint8 or array.max(initial=0) > 1:
            raise MaskError(f"mask file {path}: {kind} holds values other than 0 and 1")
    try:
        return Mask({kind: array.astype(np.bool_) for kind, array in kept.items()}, metadata)
    except MaskError as error:
        raise MaskError(f"mask file {path}: {error}") from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise MaskError(f"mask file {path}: {size} bytes; no mask is that large")
        data = path.read_bytes()
    except OSError as error:
        raise MaskError(
            f"mask file {path}: {error.strerror or error}; name a file that exists"
        ) from error
    header_size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header_size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise MaskError(f"mask file {path}: truncated or not a safetensors file; write it again")
    try:
        header = json.loads(data[8 : 8 + header_size]).get("__metadata__") or {}
        tensors = load(data)
    except (SafetensorError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise MaskError(f"mask file {path}: damaged ({error}); write it again") from error
    return header, tensors
