"""User names and passwords in URIs: found, refused by settings, and hidden in messages."""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+@")


def has_credentials(uri: str) -> bool:
    """Say whether a URI carries a user, with a password or without."""
    return _CREDENTIALS.search(uri) is not None


def hide_credentials(text: str) -> str:
    """Replace user and password in the URIs that `text` contains."""
    return _CREDENTIALS.sub("***@", text)
