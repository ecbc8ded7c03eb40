"""What reward models take and give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Answered:
    """An instruction and a response to it. `key` names it to whoever asked; `score` is one that came with it."""

    key: str
    instruction: str
    response: str
    reference: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """What became of a row: a finite value, or in `error` why there is none. `cost_usd` was paid either way."""

    key: str
    value: float | None
    error: str = ""
    cost_usd: float = 0.0


class RewardModel(Protocol):
    """What scores answers; higher is better."""

    def score(self, rows: Sequence[Answered]) -> Iterator[Score]:
        """Score every row once, in the order of completion. What goes wrong with one row is told in its score."""

    def close(self) -> None:
        """Let go of connections and memory."""


def scored(key: str, value: float) -> Score:
    """The score of a row's value, an error where it is no finite number."""
    return Score(key, value) if math.isfinite(value) else Score(key, None, f"the score is {value}, no finite number")
