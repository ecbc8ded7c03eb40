"""Seals: what is read is what was written, or is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.seals import seal, seal_bytes, seal_yaml, unseal, unseal_bytes, unseal_yaml

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
VALUES = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(st.text(max_size=3), LEAVES, max_size=3)
OBJECTS = st.dictionaries(st.text(max_size=9).filter(lambda key: key != "seal"), VALUES, max_size=4)


@given(value=OBJECTS, indent=st.none() | st.just(1))
def test_a_sealed_object_is_read_back_and_is_json_with_one_key_more(value: dict[str, Any], indent: int | None) -> None:
    sealed = seal(json.dumps(value, indent=indent).encode())
    assert unseal(sealed) == unseal(sealed + b"\n") == value
    assert json.loads(sealed).keys() == {*value, "seal"}
    assert indent or b"\n" not in sealed


@given(value=OBJECTS, indent=st.none() | st.just(1), data=st.data())
def test_a_flipped_bit_or_a_cut_is_noticed_wherever_it_is(
    value: dict[str, Any], indent: int | None, data: st.DataObject
) -> None:
    sealed = seal(json.dumps(value, indent=indent).encode())
    place = data.draw(st.integers(0, 8 * len(sealed) - 1))
    flipped = bytearray(sealed)
    flipped[place // 8] ^= 1 << place % 8
    for damaged in (bytes(flipped), sealed[: place // 8]):
        try:
            read = unseal(damaged)
        except ValueError:
            continue
        assert read == value  # a blank about the seal has become another


@pytest.mark.parametrize(
    "other", [b"", b"{}", b"[]", b"null", b'{"a": 1}', b'"seal":"00000000"}', b"\xff", b"[" * 10**5]
)
def test_what_was_never_sealed_is_refused(other: bytes) -> None:
    with pytest.raises(ValueError):
        unseal(other)
    with pytest.raises(ValueError):
        unseal_yaml(other)


@given(text=st.binary(), data=st.data())
def test_yaml_is_sealed_by_a_comment(text: bytes, data: st.DataObject) -> None:
    sealed = seal_yaml(text + b"\n")
    assert unseal_yaml(sealed) == text + b"\n"
    place = data.draw(st.integers(0, 8 * len(text) + 7))
    flipped = bytearray(sealed)
    flipped[place // 8] ^= 1 << place % 8
    with pytest.raises(ValueError, match="sealed"):
        unseal_yaml(bytes(flipped))


@given(data=st.binary(max_size=99), place=st.integers(0))
def test_bytes_are_sealed_at_their_end(data: bytes, place: int) -> None:
    sealed = seal_bytes(data)
    assert unseal_bytes(sealed) == data
    place %= 8 * len(sealed)
    flipped = bytearray(sealed)
    flipped[place // 8] ^= 1 << place % 8
    for damaged in (bytes(flipped), sealed[: place // 8]):
        with pytest.raises(ValueError, match="sealed"):
            unseal_bytes(damaged)
