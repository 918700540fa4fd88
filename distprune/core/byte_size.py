"""Sizes in bytes as people read them."""

from __future__ import annotations


def format_bytes(num_bytes: float) -> str:
    """Return a size as `12 MiB` or `1.2 GiB`."""
    mebibytes = num_bytes / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"
