"""What a Rewrite run knows of conversations, and what its stages hand to each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.data.rows import RowsFile

TURN_TYPES = {
    "set": "string", "conversation": "string", "number": "int64", "query": "string", "response": "string",
    "reference": "string", "passages": "json", "measured": "bool", "kept": "json",
}  # fmt: skip
"""Columns of the turns of all conversations, one row a turn."""


class Pair(NamedTuple):
    """An earlier turn as a rewriter is shown it: the query, and what was answered; under Fusion `response` is its
    rewrite. `reference` is a person's rewrite of it, which only training may look at."""

    query: str
    response: str
    reference: str | None = None


@dataclass(frozen=True)
class Turn:
    """A query to rewrite, with those earlier turns that the rewriter is shown, the earliest first. Turns are numbered
    from 1; `passages` are the ids of passages that answer it, where known."""

    conversation: str
    number: int
    history: tuple[Pair, ...]
    query: str
    reference: str | None = None
    passages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """A turn as the log has it. `kept` are slots that its rewrite has to hold, as texts of which one has to occur."""

    query: str
    response: str = ""
    reference: str | None = None
    passages: tuple[str, ...] = ()
    measured: bool = True
    kept: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Conversation:
    """The turns of one conversation, in their order."""

    set: str
    id: str
    turns: tuple[Said, ...]

    @property
    def key(self) -> str:
        """Names it among the conversations of all sets."""
        return f"{self.set}/{self.id}"


def turns_of(conversations: Iterable[Conversation]) -> Iterator[Turn]:
    """Every turn that is measured or learned from, with the whole history that the log has."""
    for one in conversations:
        pairs = tuple(Pair(said.query, said.response, said.reference) for said in one.turns)
        for place, said in enumerate(one.turns):
            if said.measured:
                yield Turn(one.key, place + 1, pairs[:place], said.query, said.reference, said.passages)


def rows_of(conversations: Iterable[Conversation]) -> Iterator[dict[str, object]]:
    """Rows of `TURN_TYPES`."""
    for one in conversations:
        for number, said in enumerate(one.turns, start=1):
            yield {
                "set": one.set, "conversation": one.id, "number": number, "query": said.query,
                "response": said.response, "reference": said.reference, "passages": list(said.passages),
                "measured": said.measured, "kept": [list(slot) for slot in said.kept],
            }  # fmt: skip


class Logs(Config):
    """Conversations that were read and checked: those to measure on, those to learn from, and the passages of sets that
    have some, as rows `{set, id, text}`."""

    measured: RowsFile
    learned: RowsFile
    passages: RowsFile
    sets: tuple[str, ...]

    def conversations(self, run: Folder, *, learned: bool = False) -> list[Conversation]:
        """All conversations, in the order of their sets and files."""
        rows = (self.learned if learned else self.measured).rows(run).columns(*TURN_TYPES)
        return [
            Conversation(*name, turns=tuple(_said(row[3:]) for row in turns))
            for name, turns in groupby(rows, key=lambda row: (row[0], row[1]))
        ]


class Rewrites(Config):
    """What one rewriter made of all conversations in one setting: a row a turn `{conversation, number, rewrite, asked,
    ambiguous, tokens, usd, seconds, error}`."""

    rewriter: str
    strategy: str
    k: int
    classifier: str
    rows: RowsFile

    @property
    def label(self) -> str:
        """What tables call it."""
        front = f", {self.classifier} in front" if self.classifier else ""
        return f"{self.rewriter}, {self.strategy} k={self.k}{front}"


class Measured(Config):
    """Every value of every turn and setting, as rows of an Arrow file."""

    values: RowsFile
    recommended: str


def _said(row: Sequence[object]) -> Said:
    query, response, reference, passages, measured, kept = row
    return Said(query, response or "", reference, tuple(passages), measured, tuple(map(tuple, kept)))  # type: ignore[arg-type,call-overload]
