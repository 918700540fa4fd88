"""Content keys: the SHA-256 of a JSON value in one canonical spelling.

Owns what counts as JSON and how it is spelled; what goes into a key is up to the caller.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

PlainJSON: TypeAlias = "bool | int | float | str | list[PlainJSON] | dict[str, PlainJSON] | None"

_KEY = re.compile(r"[0-9a-f]{64}")


def content_key(value: JSON) -> str:
    """Hash a JSON value independently of the order of its keys.

    Numbers of different types are different values: 1, 1.0 and True have different keys.

    Args:
        value: null, booleans, integers, finite floats, text, lists or tuples, mappings with
            text keys; nested as deep as wanted. Tuples count as lists.

    Returns:
        64 lower-case hexadecimal digits.

    Raises:
        TypeError: A value or a mapping key is of a type that JSON does not have.
        ValueError: A float is NaN or infinite, or a text is not valid Unicode.
    """
    return hashlib.sha256(canonical_json(value)).hexdigest()


def canonical_json(value: JSON) -> bytes:
    """Spell a JSON value with sorted keys, no whitespace, UTF-8, floats by `repr`.

    Args:
        value: As for `content_key`.

    Returns:
        UTF-8 bytes; equal values have equal bytes.

    Raises:
        TypeError: As for `content_key`.
        ValueError: As for `content_key`.
    """
    text = json.dumps(
        plain_json(value),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return text.encode()


def plain_json(value: object, place: str = "value") -> PlainJSON:
    """Copy a JSON value into dicts and lists, refusing everything else.

    Args:
        value: What should be JSON.
        place: Where the value stands, for messages, as in `value['recipe'][2]`.

    Returns:
        The same value built of None, bool, int, float, str, list and dict only.

    Raises:
        TypeError: As for `content_key`.
        ValueError: As for `content_key`.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _finite(float(value), place)
    if isinstance(value, str):
        return _encodable(value, place)
    if isinstance(value, list | tuple):
        return [plain_json(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_text_key(key, place): plain_json(value[key], f"{place}[{key!r}]") for key in value}
    raise TypeError(
        f"{place} is a {type(value).__module__}.{type(value).__qualname__}, which is not JSON; "
        "use None, bool, int, float, str, list, tuple or a mapping"
    )


def check_key(key: str) -> None:
    """Refuse what is not a key of `content_key`.

    Raises:
        ValueError: The key is not 64 lower-case hexadecimal digits.
    """
    if not is_key(key):
        raise ValueError(f"key {key!r} is not 64 lower-case hexadecimal digits; use content_key")


def is_key(text: str) -> bool:
    """Tell whether a text has the form of a content key."""
    return _KEY.fullmatch(text) is not None


def _finite(value: float, place: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{place} is {value!r}, which JSON cannot hold; use a finite number")
    return value


def _encodable(value: str, place: str) -> str:
    text = str.__str__(value)  # the text of an enum member, not its name
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place} is {text!r}, which is not valid Unicode; mend it") from error
    return text


def _text_key(key: object, place: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{place} has the key {key!r}, which is not text; JSON keys must be str")
    return _encodable(key, f"a key of {place}")
