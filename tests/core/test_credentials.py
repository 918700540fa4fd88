"""User and password in a URI are found, and never shown."""

from __future__ import annotations

import pytest

from distprune.core.credentials import has_credentials, hide_credentials


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@host:5000/api", "https://***@host:5000/api"),
        ("s3://key:secret@bucket/prefix", "s3://***@bucket/prefix"),
        ("http://token@host", "http://***@host"),
    ],
)
def test_credentials_are_found_and_hidden(uri: str, shown: str) -> None:
    assert has_credentials(uri)
    assert hide_credentials(f"GET {uri} failed") == f"GET {shown} failed"


@pytest.mark.parametrize("uri", ["http://host:5000/a@b", "s3://bucket/me@home", "me@host", ""])
def test_what_is_none_stays(uri: str) -> None:
    assert not has_credentials(uri)
    assert hide_credentials(uri) == uri
