"""The manifest of an entry: what it is and the size and SHA-256 of its files, as checked JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from distprune.store.content import DamagedEntryError, FileRecord, check_file_name
from distprune.store.key import JSON, PlainJSON, content_key

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Manifest:
    """A parsed manifest."""

    key: str
    """Content key of the entry."""

    values: dict[str, PlainJSON]
    """The caller's record; read it through `record`."""

    file_records: dict[str, FileRecord]
    """File name -> size and digest; read the names through `files`."""

    folder: str
    """Subfolder of the entry that holds its files; "" for the entry's own folder."""

    created: str
    """When the entry was written, ISO 8601 in UTC."""

    seconds: float
    """Wall time that its files took to make."""

    host: str = ""
    """Name of the host that made them; "" in entries of versions that did not note it."""

    @property
    def record(self) -> Mapping[str, JSON]:
        """The caller's record, read-only."""
        return MappingProxyType(self.values)

    @property
    def files(self) -> tuple[str, ...]:
        """File names, sorted."""
        return tuple(sorted(self.file_records))

    @property
    def num_bytes(self) -> int:
        """Size of all files, the manifest not counted."""
        return sum(record.size for record in self.file_records.values())

    def to_bytes(self) -> bytes:
        """Spell the manifest as JSON, with a checksum over all of it."""
        body: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "key": self.key,
            "created": self.created,
            "seconds": self.seconds,
            "host": self.host,
            "record": self.values,
            "folder": self.folder,
            "files": {name: asdict(self.file_records[name]) for name in self.files},
        }
        body["checksum"] = content_key(body)
        return (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode()


def parse_manifest(data: bytes, key: str) -> Manifest:
    """Read a manifest and check it against the key under which it was found.

    Args:
        data: The bytes of the manifest file.
        key: Content key of the entry.

    Raises:
        DamagedEntryError: Not JSON, another schema version, changed since it was written,
            another entry's, or with file names that lead out of the entry.
    """
    try:
        body = json.loads(data)
        version = body["schema_version"]
        if version != SCHEMA_VERSION:
            raise DamagedEntryError(f"schema version {version!r}, known is {SCHEMA_VERSION}")
        if body.pop("checksum") != content_key(body):
            raise DamagedEntryError("the manifest does not match its checksum")
        manifest = _build(body)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedEntryError(f"the manifest cannot be read ({error!r})") from error
    if manifest.key != key:
        raise DamagedEntryError(f"the manifest is that of entry {manifest.key}")
    return manifest


def digest_manifest(data: bytes) -> str:
    """Identify one version of a manifest by the SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()


def _build(body: dict[str, Any]) -> Manifest:
    files = {name: FileRecord(**record) for name, record in body["files"].items()}
    for name in (*files, *filter(None, [body["folder"]])):
        check_file_name(name)
    return Manifest(
        key=body["key"],
        values=body["record"],
        file_records=files,
        folder=body["folder"],
        created=body["created"],
        seconds=float(body["seconds"]),
        host=str(body.get("host", "")),
    )
