"""Every measured turn with what each method has made of it, and means over turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from squadron.evaluate.summary import Estimate, estimate
from squadron.methods.rewrite.records import Conversation, Said


@dataclass(eq=False)
class Sheet:
    """Every measured turn (N of them), and what each method has made of it; None where that failed."""

    conversations: Sequence[Conversation]
    texts: dict[str, list[str | None]] = field(default_factory=dict)
    values: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """By method and measure, (N,); NaN where a turn has no value."""

    @cached_property
    def turns(self) -> list[tuple[Conversation, int, Said]]:
        """The turns: their conversations and numbers."""
        return [(one, n, said) for one in self.conversations for n, said in enumerate(one.turns, 1) if said.measured]

    @cached_property
    def place(self) -> dict[tuple[str, int], int]:
        """Where each turn stands."""
        return {(one.key, number): place for place, (one, number, _) in enumerate(self.turns)}

    def take(self, name: str, rows: Sequence[tuple[str, int, str, bool]]) -> None:
        """Note what a method has made: conversation, number, rewrite, and whether it failed."""
        texts: list[str | None] = [None] * len(self.turns)
        for conversation, number, rewrite, failed in rows:
            texts[self.place[conversation, number]] = None if failed else rewrite
        self.texts[name] = texts

    def estimate(self, values_N: np.ndarray, some_N: np.ndarray | None = None) -> Estimate:
        """The mean over turns with its interval, which resamples conversations."""
        by_conversation: dict[str, list[float]] = {}
        for place, (one, _, _) in enumerate(self.turns):
            if some_N is None or some_N[place]:
                by_conversation.setdefault(one.key, []).append(float(values_N[place]))
        longest = max(map(len, by_conversation.values()), default=0)
        rows = [row + [np.nan] * (longest - len(row)) for row in by_conversation.values()]
        found = np.array(rows).reshape(len(rows), 1, longest)
        return estimate(found[np.isfinite(found).any((1, 2))])
