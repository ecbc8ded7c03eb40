"""Settings read by the type that each has, not by how their words look.

A word for a text is that text, whole. A number is decimal, a truth is `true` or `false`, and what could be either of
two things is refused. Structures of settings are walked beside the annotations of their classes, through optionals,
unions, lists and mappings; pydantic then validates what the walk has read.
"""

from __future__ import annotations

import enum
import math
import types
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from squadron.core.errors import ConfigError
from squadron.core.yaml_text import INTEGER, NOT_FINITE, NULLS, NUMBER, TRUTHS, Word, Written, plain_kind, read_flow

_NUMBERS = {bool: "true or false", int: "a valid whole number", float: "a valid number"}
_MOST_DIGITS = 300


@dataclass
class _Kinds:
    """What the annotations of a setting allow."""

    text: bool = False
    none: bool = False
    any: bool = False
    finite: bool = True
    numbers: list[type] = field(default_factory=list)
    listed: list[Any] = field(default_factory=list)
    models: list[type[BaseModel]] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    """Annotations of lists, tuples and sets."""
    mappings: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, annotations: Iterable[Any]) -> _Kinds:
        kinds = cls()
        for one in annotations:
            kinds.add(one)
        return kinds

    @property
    def structured(self) -> bool:
        return bool(self.models or self.items or self.mappings)

    def add(self, one: Any) -> None:
        """Allow what an annotation allows, too."""
        origin = get_origin(one)
        kind = one if isinstance(one, type) and origin is None else origin
        if origin is Annotated:
            inner, *metadata = get_args(one)
            self.finite &= not any(getattr(said, "allow_inf_nan", None) is True for said in metadata)
            self.add(inner)
        elif origin in (Union, types.UnionType):
            for member in get_args(one):
                self.add(member)
        elif origin is Literal:
            self.listed += get_args(one)
        elif one is None or one is types.NoneType:
            self.none = True
        elif one is Any or one is object:
            self.any = True
        elif one in _NUMBERS:
            self.numbers.append(one)
        elif not isinstance(kind, type) or issubclass(kind, str | bytes | PurePath):
            self.text = True
        elif issubclass(kind, enum.Enum):
            self.listed += [member.value for member in kind]
        elif issubclass(kind, BaseModel):
            self.models.append(kind)
        elif issubclass(kind, Mapping):
            self.mappings.append(one)
        elif issubclass(kind, Sequence | Set):
            self.items.append(one)
        else:  # what pydantic reads from a text, such as dates
            self.text = True


@dataclass
class Walk:
    """Reads values by their types; `problems` are told by key, `known` are the names that each part has."""

    problems: dict[str, str] = field(default_factory=dict)
    known: dict[str, list[str]] = field(default_factory=dict)

    def model(self, classes: Sequence[type[BaseModel]], values: Mapping[str, Any], key: str, default: Any) -> Any:
        """The settings of a part, which is of one of these classes; `default` is what the part is unless it is set."""
        classes = _pick(classes, values, default)
        self.known[key] = sorted({name for one in classes for name in one.model_fields})
        read = {}
        for name, value in values.items():
            fields = [one.model_fields[name] for one in classes if name in one.model_fields]
            usual = getattr(default, name, None) if type(default) in classes else None
            if usual is None and len(classes) == 1 and fields:
                usual = fields[0].get_default(call_default_factory=True)
            annotations = tuple(_annotation(one) for one in fields)
            read[name] = self.value(annotations, value, f"{key}.{name}" if key else name, usual)
        return read

    def value(self, annotations: tuple[Any, ...], value: Any, key: str, default: Any = None) -> Any:
        """A value at a key, whose annotations these are; without any, nothing is known of it."""
        kinds = _Kinds.of(annotations)
        if isinstance(value, Word):
            value = self._word(value, kinds, key)
        if isinstance(value, Mapping | list) and kinds.text and not kinds.structured and not kinds.any:
            self.problems[key] = "should be a text; one that begins with { or [ stands in quotes"
            return value
        if isinstance(value, Mapping):
            return self._mapping(value, kinds, key, default)
        if isinstance(value, list):
            return [self.value(_item(kinds, at), item, f"{key}.{at}") for at, item in enumerate(value)]
        try:
            return _scalar(value, kinds) if annotations else _unquoted(value)
        except ValueError as error:
            self.problems[key] = str(error)
            return value

    def _word(self, word: Word, kinds: _Kinds, key: str) -> Any:
        """A list or a mapping in a word, where the setting may be one; else the word itself."""
        opens = "[{\"'" if kinds.any else "[{" if kinds.structured else ""
        if not word.strip() or word.lstrip()[0] not in opens:
            return word
        try:
            return read_flow(word)
        except ConfigError as error:
            if kinds.text:
                return word
            self.problems[key] = error.what  # not what was given: keys and passwords may stand in it
            return str(word)

    def _mapping(self, value: Mapping[str, Any], kinds: _Kinds, key: str, default: Any) -> Any:
        if kinds.models:
            return self.model(kinds.models, value, key, default)
        inner = _inner(kinds)
        return {name: self.value(inner, item, f"{key}.{name}") for name, item in value.items()}


def annotations_at(model: type[BaseModel], key: str) -> tuple[Any, ...]:
    """The annotations of a setting by its path, of all classes that its parts may be of; none where there is no such
    setting."""
    found: tuple[Any, ...] = (model,)
    for part in key.split("."):
        kinds = _Kinds.of(found)
        fields = [_annotation(one.model_fields[part]) for one in kinds.models if part in one.model_fields]
        items = _item(kinds, int(part)) if kinds.items and part.isdecimal() else ()
        found = (*fields, *items, *_inner(kinds))
    return found


def _inner(kinds: _Kinds) -> tuple[Any, ...]:
    """The annotations of a mapping's values."""
    inner = tuple((get_args(one) or (Any, Any))[1] for one in kinds.mappings)
    return inner or ((Any,) if kinds.any else ())


def _pick(classes: Sequence[type[BaseModel]], values: Mapping[str, Any], default: Any) -> Sequence[type[BaseModel]]:
    """The classes whose tags, such as `provider`, are as the values say; without a tag, the class of the default."""
    if len(classes) == 1:
        return classes
    fits = [one for one in classes if all(str(values.get(name, tag)) == str(tag) for name, tag in _tags(one))]
    told = any(name in values for one in classes for name, _ in _tags(one))
    return [type(default)] if not told and type(default) in fits else fits or classes


def _tags(kind: type[BaseModel]) -> list[tuple[str, Any]]:
    literals = ((name, one.annotation) for name, one in kind.model_fields.items())
    single = ((name, get_args(one)) for name, one in literals if get_origin(one) is Literal)
    return [(name, values[0]) for name, values in single if len(values) == 1]


def _annotation(one: FieldInfo) -> Any:
    """A field's annotation with what `Field` says of infinity, or a default that is infinite."""
    infinite = isinstance(one.default, float) and not math.isfinite(one.default)
    said = [*one.metadata, *([types.SimpleNamespace(allow_inf_nan=True)] if infinite else [])]
    return Annotated[one.annotation, *said] if said else one.annotation


def _item(kinds: _Kinds, at: int) -> tuple[Any, ...]:
    """The annotations of an item of a list."""
    found: list[Any] = [Any] if kinds.any else []
    for one in kinds.items:
        inner = get_args(one)
        fixed = (get_origin(one) or one) is tuple and not (len(inner) == 2 and inner[1] is Ellipsis)
        found += [Any] if not inner else [inner[min(at, len(inner) - 1)]] if fixed else [inner[0]]
    return tuple(found)


def _unquoted(value: Any) -> Any:
    """A word of which nothing is known, as for a setting that there is not."""
    return str(value) if isinstance(value, Written) else value


def _scalar(value: Any, kinds: _Kinds) -> Any:
    """A single value by what may stand there. Raises ValueError that says what is wrong with it."""
    if isinstance(value, bool | int | float):
        return _checked(value, kinds)
    if not isinstance(value, str):
        return value
    for one in kinds.listed:
        if str(value) == (str(one).lower() if isinstance(one, bool) else str(one)):
            return one
    if not isinstance(value, Written):
        return value if kinds.text or kinds.any or not kinds.numbers else _number(str(value), kinds)
    if (nothing := _null(value, kinds)) is not None:
        return None if nothing else str(value)
    found = plain_kind(value)
    if kinds.text and kinds.numbers:  # of both, a number where it looks like one that may stand there
        if found == "disputed":
            raise ValueError(_dispute(value))
        fits = bool in kinds.numbers if found == "bool" else found != "str" and kinds.numbers != [bool]
        return _number(str(value), kinds) if fits else str(value)
    if kinds.numbers:
        return _number(str(value), kinds)
    if kinds.text or not kinds.any:
        return str(value)
    if found == "disputed":
        raise ValueError(_dispute(value))
    return str(value) if found == "str" else _number(str(value), _Kinds(numbers=[bool, int, float]))


def _null(value: Written, kinds: _Kinds) -> bool | None:
    """Whether a word stands for nothing, as null does; None if it is not about that. Raises ValueError for one that may
    or may not."""
    if not kinds.none and not kinds.any:
        # In a file a text says null by being in quotes; there are none on a command line.
        return None if isinstance(value, Word) else value in NULLS or None
    if value in NULLS[:3]:
        return True
    if value == "None" and not kinds.any:
        raise ValueError("None is written null; a text None stands in a file, in quotes")
    if value == "" and isinstance(value, Word) and not kinds.text:
        raise ValueError("nothing is given; write null for none")
    if value in NULLS and not (isinstance(value, Word) and kinds.text):
        if value == "~" and kinds.text:
            raise ValueError('~ may be none or home: write null, or "~" in quotes')
        return True
    return None


def _number(text: str, kinds: _Kinds) -> bool | int | float:
    """The number or the truth that a text writes. Raises ValueError if it is none of those that may stand there."""
    if bool in kinds.numbers and text in TRUTHS:
        return TRUTHS[text]
    if kinds.numbers != [bool]:
        if INTEGER.fullmatch(text):
            if len(text) > _MOST_DIGITS:
                raise ValueError(f"a number of {len(text):,} digits")
            return _checked(int(text), kinds)
        if NUMBER.fullmatch(text) or NOT_FINITE.fullmatch(text):
            number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            if math.isinf(number) and NUMBER.fullmatch(text):
                raise ValueError(f"{text} is too large a number")
            if number == 0 and text.lower().partition("e")[0].strip("+-0."):
                raise ValueError(f"{text} is so small that it would be 0")
            return _checked(number, kinds)
    advice = f": {_dispute(text)}" if plain_kind(text) == "disputed" else ""
    raise ValueError(f"should be {_called(kinds)}, not {text!r}{advice}")


def _checked(value: float, kinds: _Kinds) -> Any:
    """A truth or a number that may stand there."""
    if kinds.any or not kinds.numbers:
        return value
    truth = isinstance(value, bool)
    if truth != (bool in kinds.numbers) and (truth or kinds.numbers == [bool]):
        raise ValueError(f"should be {_called(kinds)}, not {str(value).lower() if truth else value}")
    if isinstance(value, float) and not math.isfinite(value) and kinds.finite:
        raise ValueError(f"{value} is not a finite number")
    if float not in kinds.numbers and isinstance(value, float) and abs(value) > 2**53:
        raise ValueError(f"{value} has more digits than can be told: write all of them, without an exponent")
    return value


def _called(kinds: _Kinds) -> str:
    return " or ".join(_NUMBERS[one] for one in kinds.numbers if not (one is int and float in kinds.numbers))


def _dispute(text: str) -> str:
    if text.lower() in ("yes", "no", "on", "off"):
        meant = "true" if text.lower() in ("yes", "on") else "false"
        return f'{text} is a truth to some and a text to others: write {meant}, or "{text}"'
    return f'{text} is read in more than one way: write a decimal number without 0 before it or _, or "{text}"'
