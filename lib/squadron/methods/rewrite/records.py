"""What a Rewrite run knows of conversations, and what its stages hand to each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.data.rows import RowsFile
from squadron.evaluate.summary import Estimate

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


def same_text(first: str, second: str) -> bool:
    """Whether two texts are the same but for case, spaces and what stands at the end."""
    return " ".join(first.lower().split()).rstrip(" ?.!") == " ".join(second.lower().split()).rstrip(" ?.!")


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


REWRITE_TYPES = {
    "strategy": "string", "k": "int64", "classifier": "string", "disturbed": "bool", "conversation": "string",
    "number": "int64", "rewrite": "string", "asked": "bool", "failed": "bool",
}  # fmt: skip
"""Columns of rewrites, one row a turn and setting."""


class Cost(Config):
    """What one setting of a rewriter took: how many turns it was asked about, and for a chat model what that cost."""

    setting: str
    turns: int
    asked: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0


class Rewrites(Config):
    """What one rewriter made of all conversations in all settings."""

    rewriter: str
    rows: RowsFile
    costs: tuple[Cost, ...]


class Method(Config):
    """A rewriter in a setting, with its means by set and measure; `All` is over all sets."""

    name: str
    rewriter: str
    strategy: str
    k: int
    classifier: str
    means: dict[str, dict[str, Estimate]]


class Compared(Config):
    """All methods, what is recommended, and every value of every turn as rows of an Arrow file."""

    methods: tuple[Method, ...]
    recommended: str
    measure: str
    values: RowsFile


class Drift(Config):
    """The share of rewrites after a wrong one that are others than without it, by rewriter and setting."""

    carried: dict[str, float]


class Latency(Config):
    """What one turn takes, by rewriter."""

    seconds: dict[str, float]


def _said(row: Sequence[object]) -> Said:
    query, response, reference, passages, measured, kept = row
    return Said(query, response or "", reference, tuple(passages), measured, tuple(map(tuple, kept)))  # type: ignore[arg-type,call-overload]
