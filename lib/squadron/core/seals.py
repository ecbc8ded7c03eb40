"""Seals: a JSON object whose last key is a sum over all that stands before it, so that damage is noticed on reading.

    {"step": 3, "loss": 0.25,"seal":"5f0c1d2e"}

The sum is the CRC-32 of the text before the seal: it finds every flipped bit, every cut, and another text but once in
four thousand million. It tells damage, not forgery: who can write the file can seal it. Any reader of JSON reads it.
"""

from __future__ import annotations

import re
from typing import Any
from zlib import crc32

from squadron.core.json_text import from_json

KEY = "seal"
_SEAL = re.compile(rb',?\s*"seal":\s*"([0-9a-f]{8})"\s*\}\s*\Z')
_LONGEST = 40  # bytes, of what `_SEAL` matches in what is written here
_COMMENT = re.compile(rb"# seal ([0-9a-f]{8})\s*\Z")


def seal(text: bytes) -> bytes:
    """A JSON object with a seal, on one line if it is on one. Blanks may stand behind its last brace, or before it."""
    end = text.rindex(b"}")
    while text[end - 1 : end].isspace():
        end -= 1
    body = memoryview(text)[:end]  # a line may have megabytes: it is copied once
    lines = text.find(b"\n", 0, end) >= 0
    before = b"" if end == 1 else b",\n " if lines else b","
    return b"".join((body, before, b'"seal":"%08x"' % crc32(body), b"\n}" if lines else b"}"))


def unseal(text: bytes) -> dict[str, Any]:
    """The object in a text that `seal` gave. Raises ValueError, with the reason, if it is not what was written."""
    found = _SEAL.search(text, max(0, len(text) - _LONGEST))
    if found is None:
        raise ValueError("it does not end with a seal")
    if crc32(memoryview(text)[: found.start()]) != int(found[1], 16):
        raise ValueError("its content is not what was sealed")
    value = from_json(text)
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    del value[KEY]
    return value


def seal_yaml(text: bytes) -> bytes:
    """A YAML text with its seal in a comment at the end."""
    return text + b"# seal %08x\n" % crc32(text)


def unseal_yaml(text: bytes) -> bytes:
    """The text that `seal_yaml` was given. Raises ValueError, with the reason, if it is another."""
    found = _COMMENT.search(text, max(0, len(text) - _LONGEST))
    if found is None:
        raise ValueError("it does not end with a seal")
    if crc32(text[: found.start()]) != int(found[1], 16):
        raise ValueError("its content is not what was sealed")
    return text[: found.start()]


def seal_bytes(data: bytes) -> bytes:
    """Bytes with their seal behind them."""
    return data + b"%08x" % crc32(data)


def unseal_bytes(data: bytes) -> bytes:
    """The bytes that `seal_bytes` was given. Raises ValueError, with the reason, if they are others."""
    content, seal_8 = data[:-8], data[-8:]
    if seal_8 != b"%08x" % crc32(content):
        raise ValueError("its content is not what was sealed")
    return content
