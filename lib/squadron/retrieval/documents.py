"""What is searched, and what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Document:
    """A text with the id by which labels and answers name it."""

    id: str
    text: str


@dataclass(frozen=True)
class Query:
    """A question. `relevant` has the grade of each document that answers it, by id; the others count as 0.
    `instruction` says what is looked for, for models that read one."""

    id: str
    text: str
    relevant: Mapping[str, int] = field(default_factory=dict)
    instruction: str | None = None
