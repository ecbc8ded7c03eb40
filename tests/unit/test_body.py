"""Bodies that clients send: read in a time that grows with their size alone."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.serve.body import MOST_PARTS, BadBody, read_json

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(VALUES)
def test_what_json_can_say_is_read(value: Any) -> None:
    for ascii_only in (True, False):
        assert read_json(json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")) == value


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"a": [1, 2, 1e400]}', "a.2: the number is larger"),
        (b'[{"a": -1e999}]', "0.a: the number is larger"),
        (rb'{"a": ["\ud800"]}', "a.0: half a surrogate pair"),
        (rb'{"\udfff": 1}', "half a surrogate pair"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' stands twice"),
    ],
)
def test_what_cannot_be_handed_on_is_named(body: bytes, said: str) -> None:
    with pytest.raises(BadBody) as refused:
        read_json(body)
    assert said in str(refused.value.detail)


def test_texts_and_numbers_are_no_parts() -> None:
    """What counts is what has to be made: a long text of brackets is one value, and so is each number of a list."""
    value = {"text": '[{"a": 1}]\\"' * MOST_PARTS, "ids": list(range(4 * MOST_PARTS))}
    assert read_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 10**6 + b"[]]",
        b"{" + b",".join(b'"%d":1' % number for number in range(400_000)) + b"}",
        b"[" * 10**6,
        b'{"a":' * 10**6,
        b'[["' * 10**6,
    ],
    ids=["lists", "keys", "deep", "deep objects", "texts that do not end"],
)
def test_a_million_parts_are_refused_before_any_is_made(body: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(BadBody, match="400") as refused:
        read_json(body)
    assert "at most" in str(refused.value.detail) and time.process_time() - begun < 2


def test_a_key_that_stands_twice_at_the_end_is_found_at_once() -> None:
    names = [f'"{number}":1' for number in range(MOST_PARTS - 2)]
    begun = time.process_time()
    with pytest.raises(BadBody):
        read_json(f"{{{','.join([*names, names[-1]])}}}".encode())
    assert time.process_time() - begun < 2
