import json
from dataclasses import replace

import pytest

from distprune.store.content import DamagedEntryError, FileRecord
from distprune.store.key import content_key
from distprune.store.manifest import Manifest, parse_manifest

KEY = content_key("manifest")
MANIFEST = Manifest(
    key=KEY,
    values={"metric": 0.8125, "name": "Käfer"},
    file_records={"b.json": FileRecord(3, "0" * 64), "a/x": FileRecord(0, "1" * 64)},
    folder="",
    created="2030-01-01T00:00:00+00:00",
    seconds=12.5,
)


def test_manifest_survives_its_spelling() -> None:
    assert parse_manifest(MANIFEST.to_bytes(), KEY) == MANIFEST
    assert MANIFEST.files == ("a/x", "b.json")


def test_record_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        MANIFEST.record["metric"] = 1.0  # type: ignore[index]


def test_every_flipped_byte_is_noticed() -> None:
    data = MANIFEST.to_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        try:
            parsed = parse_manifest(bytes(changed), KEY)
        except DamagedEntryError:
            continue
        assert parsed == MANIFEST  # a space became another space between two tokens


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b"[" * 100_000, b"\xff"])
def test_what_is_no_manifest_is_damaged(data: bytes) -> None:
    with pytest.raises(DamagedEntryError, match="cannot be read"):
        parse_manifest(data, KEY)


def test_a_manifest_of_another_key_is_damaged() -> None:
    with pytest.raises(DamagedEntryError, match="that of entry"):
        parse_manifest(MANIFEST.to_bytes(), content_key("other"))


def test_another_schema_version_is_damaged() -> None:
    body = json.loads(MANIFEST.to_bytes())
    del body["checksum"]
    body["schema_version"] = 1
    body["checksum"] = content_key(body)
    with pytest.raises(DamagedEntryError, match="schema version 1, known is 2"):
        parse_manifest(json.dumps(body).encode(), KEY)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "manifest.json"])
def test_file_names_that_lead_out_are_damaged(name: str) -> None:
    hostile = replace(MANIFEST, file_records={name: FileRecord(0, "0" * 64)})
    with pytest.raises(DamagedEntryError, match="file name"):
        parse_manifest(hostile.to_bytes(), KEY)
    with pytest.raises(DamagedEntryError, match="file name"):
        parse_manifest(replace(MANIFEST, folder="../other").to_bytes(), KEY)
