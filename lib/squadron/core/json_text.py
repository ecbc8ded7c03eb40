"""JSON as the standard library reads and writes it, in a fraction of its time."""

from __future__ import annotations

import json
from typing import Any

import pydantic_core


def to_json(value: Any) -> bytes:
    """`value` as JSON. Raises TypeError for what JSON cannot hold."""
    try:
        return pydantic_core.to_json(value)
    except ValueError:  # also for half a surrogate pair, which a model may well say
        return json.dumps(value).encode()


def from_json(text: bytes) -> Any:
    """The value of a JSON text. Raises ValueError if it is none, or nested too deeply to be read."""
    try:
        return pydantic_core.from_json(text, cache_strings="keys")
    except ValueError:
        try:
            return json.loads(text)
        except RecursionError as error:
            raise ValueError(str(error)) from None


def storable(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair: JSON may bring one, UTF-8 and Arrow cannot hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
