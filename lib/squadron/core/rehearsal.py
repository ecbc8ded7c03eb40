"""A configuration in small: the same code on the same settings, but few rows, steps and samples, and stand-ins for what
cannot be had here.

Sizes are stated where they are declared: `count: Annotated[int, AtMost(8)] = Field(10_000, ge=1)`. So are the models
that a hub or a folder holds: `path: Annotated[InputPath, Model("causal")]`. What needs more than one field to decide,
such as a data set by its columns, is a method `rehearse` of the class that has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel

from squadron.core.inputs import InputPath

ConfigT = TypeVar("ConfigT", bound=BaseModel)
ModelKind = Literal["causal", "sequence", "encoder", "comet"]
Replies = Sequence[tuple[str, Sequence[str]]]
"""What models say: to a last message that matches a regular expression, one of several texts."""
Records = Callable[[], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True)
class AtMost:
    """In a rehearsal a number is this at most, and so is each of several; texts of settings stay as they are.

    `unset`: what stands for None where None means all of them. `distinct`: of several, none comes twice.
    """

    most: float
    unset: float | None = None
    distinct: bool = False


@dataclass(frozen=True)
class Model:
    """In a rehearsal a small model of random weights stands for the one that the path names: of the same architecture,
    with the same tokenizer, template and special tokens.

    `labels` are fields beside it, whose texts are one token each for the model that is named, and so for this one.
    """

    kind: ModelKind = "causal"
    labels: tuple[str, ...] = ()


class StandIns(Protocol):
    """What stands for models, data and servers; their models say what `replies` says."""

    replies: Replies

    def model(self, path: str, kind: ModelKind, labels: Sequence[str] = ()) -> InputPath:
        """A small model of random weights in place of the one at a hub name or in a folder; each label is a token."""

    def rows(self, path: str, split: str, records: Records) -> InputPath:
        """A file of the first rows of a data set that can be read here, else of these records."""

    def text(self, path: str, make: Callable[[], str]) -> InputPath:
        """A file as it is where there is one, else one with this text."""

    def endpoint(self, model: str, base_url: str) -> str:
        """The address of a local server that takes and refuses what the named one does."""


@runtime_checkable
class Rehearses(Protocol):
    """A configuration that knows more of its rehearsal than its fields state."""

    def rehearse(self, stand_ins: StandIns) -> Any:
        """The same, whose sizes are small already, with stand-ins."""


def rehearse(config: ConfigT, stand_ins: StandIns) -> ConfigT:
    """The configuration in small: sizes first, from the inside out, then what stands in for what.

    Raises ConfigError where a stand-in cannot be made.
    """
    values: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = _shrink(getattr(config, name), stand_ins)
        for mark in field.metadata:
            if isinstance(mark, AtMost):
                value = _cut(value, mark)
            elif isinstance(mark, Model) and value is not None:
                labels = [label for name in mark.labels if (label := getattr(config, name)) is not None]
                value = stand_ins.model(str(value), mark.kind, labels)
        values[name] = value
    small = type(config).model_validate(values)
    return small.rehearse(stand_ins) if isinstance(small, Rehearses) else small


def _shrink(value: Any, stand_ins: StandIns) -> Any:
    if isinstance(value, BaseModel):
        return rehearse(value, stand_ins)
    return tuple(_shrink(item, stand_ins) for item in value) if isinstance(value, tuple) else value


def _cut(value: Any, mark: AtMost) -> Any:
    if isinstance(value, tuple):
        small = [_cut(item, mark) for item in value]
        return tuple(dict.fromkeys(small) if mark.distinct else small)
    if value is None:
        return mark.unset
    return min(value, type(value)(mark.most)) if isinstance(value, int | float) else value
