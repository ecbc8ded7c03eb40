"""Single settings by their paths: the `key.path=value` words of a command line, and what a sweep varies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from squadron.core.errors import ConfigError
from squadron.core.yaml_text import MOST_DEEP, NULLS, Word, Written


def split_words(words: Sequence[str]) -> dict[str, Word]:
    """Keys and values of `key.path=value` words. Raises ConfigError for a word that is none, or a key that comes
    twice."""
    found: dict[str, Word] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} is not a setting", where="command line", fix="write key.path=value")
        if key.count(".") >= MOST_DEEP:
            raise ConfigError(f"no setting lies {key.count('.')} parts deep", where=f"command line: {word[:40]}…")
        if key in found:
            raise ConfigError(f"{key} is set twice", where="command line", fix="keep one of them")
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{word!r} is no text in UTF-8", where="command line") from None
        found[key] = Word(text)
    return found


def check_overlap(keys: Iterable[str], where: str) -> None:
    """Raise ConfigError if one of several settings is there twice, or is a part of another: which of them counts would
    depend on their order."""
    every: set[str] = set()
    for key in keys:
        if key in every:
            raise ConfigError(f"{key} is set twice", where=where, fix="keep one of them")
        every.add(key)
    for key in sorted(every):
        if whole := next((one for one in prefixes(key)[1:] if one in every), None):
            what = f"{whole} and {key} are one setting and a part of it"
            raise ConfigError(what, where=where, fix="keep one of them")


def assign(values: dict[str, Any], key: str, value: Any, model: type[BaseModel], where: str) -> None:
    """Put a value at a key of nested values. Mappings on the way are made; items of lists are there already, or in the
    defaults of the model. Raises ConfigError if the key leads nowhere."""
    parts = key.split(".")
    place: Any = values
    for depth, part in enumerate(parts[:-1], start=1):
        at = _position(place, part, where)
        child = place[at] if isinstance(place, list) else place.get(at)
        if child is None or (isinstance(child, Written) and child in NULLS):
            items = _default_items(model, parts[:depth])
            child = place[at] = {} if items is None else items
        if not isinstance(child, dict | list):
            raise ConfigError(f"{part} is a value and has no setting {parts[depth]!r}", where=where)
        place = child
    place[_position(place, parts[-1], where)] = value


def prefixes(key: str) -> list[str]:
    """A key, and the keys of all that it is a part of, the nearest first."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def _position(place: Any, part: str, where: str) -> Any:
    """The key or the index that a part of a path names in a mapping or list."""
    if isinstance(place, dict):
        return part
    if not (part.isdecimal() and str(int(part)) == part and int(part) < len(place)):
        what = f"there is no item {part!r} in a list of {len(place)}"
        raise ConfigError(what, where=where, fix=f"count from 0 to {len(place) - 1}" if place else "set the whole list")
    return int(part)


def _default_items(model: type[BaseModel], parts: Sequence[str]) -> list[Any] | None:
    """The items of a list that is only in the defaults of a model; None if there is no list."""
    field = model.model_fields.get(parts[0])
    found = field.get_default(call_default_factory=True) if field else None
    for part in parts[1:]:
        found = found.get(part) if isinstance(found, Mapping) else getattr(found, part, None)
    if not isinstance(found, list | tuple):
        return None
    return [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in found]
