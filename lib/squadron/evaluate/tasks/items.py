"""Questions with their accepted answers."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["number", "choice", "boolean", "date", "text"]
"""How answers are compared: by what the numbers mean, by letter, as true or false, by month, day and year, by words."""


class Item(NamedTuple):
    """A question; `gold` are answers of which each is right, `kind` says how an answer is compared with them."""

    id: str
    question: str
    gold: tuple[str, ...]
    kind: Kind
    task: str = ""
