import enum
import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.store.key import JSON, canonical_json, check_key, content_key

TEXT = st.text(max_size=8).filter(lambda text: text.isprintable())
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def reverse_mappings(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {key: reverse_mappings(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [reverse_mappings(item) for item in value]
    return value


def spell_types(value: JSON) -> object:
    """Tell apart what `==` does not: 1, 1.0 and True; 0.0 and -0.0."""
    if isinstance(value, dict):
        return {key: spell_types(item) for key, item in value.items()}
    if isinstance(value, list):
        return [spell_types(item) for item in value]
    return type(value).__name__, repr(value)


@given(VALUES)
def test_order_of_keys_does_not_matter(value: JSON) -> None:
    assert content_key(value) == content_key(reverse_mappings(value))


@given(VALUES, VALUES)
def test_keys_are_equal_exactly_for_equal_values(first: JSON, second: JSON) -> None:
    are_equal = spell_types(first) == spell_types(second)
    assert (content_key(first) == content_key(second)) == are_equal


@given(VALUES)
def test_wrapping_a_value_changes_its_key(value: JSON) -> None:
    assert len({content_key(value), content_key([value]), content_key({"a": value})}) == 3


def test_numbers_of_different_types_differ() -> None:
    assert len({content_key(value) for value in (1, 1.0, True, "1", [1], None)}) == 6


def test_canonical_spelling_is_pinned() -> None:
    value: JSON = {"b": [1, 1.0, True, None], "a": {"é": 1e-05, "z": -0.0}}
    assert canonical_json(value) == '{"a":{"z":-0.0,"é":1e-05},"b":[1,1.0,true,null]}'.encode()
    assert content_key(value) == hashlib.sha256(canonical_json(value)).hexdigest()
    assert content_key({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_tuples_enums_and_float_subclasses_count_as_their_values() -> None:
    class Shape(enum.StrEnum):
        LINEAR = "linear"

    assert content_key((1, 2)) == content_key([1, 2])
    assert content_key(Shape.LINEAR) == content_key("linear")
    assert content_key(np.float64(0.1)) == content_key(0.1)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_place(number: float) -> None:
    with pytest.raises(ValueError, match=r"value\['recipe'\]\[1\]\['rate'\] is -?(nan|inf)"):
        content_key({"recipe": [0, {"rate": number}]})


@pytest.mark.parametrize("alien", [{1, 2}, b"x", np.float32(1), np.zeros(2), object(), 1j])
def test_types_that_json_lacks_are_refused_with_their_place(alien: JSON) -> None:
    with pytest.raises(TypeError, match=r"value\['a'\]\[0\] is a .*not JSON"):
        content_key({"a": [alien]})


def test_keys_that_are_not_text_are_refused() -> None:
    with pytest.raises(TypeError, match=r"value\['a'\] has the key 1"):
        content_key({"a": {1: 2}})  # type: ignore[dict-item]


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"value\['a'\] is '\\udc80'"):
        content_key({"a": "\udc80"})


@pytest.mark.parametrize("key", ["", "abc", "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_check_key_refuses_what_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="use content_key"):
        check_key(key)
