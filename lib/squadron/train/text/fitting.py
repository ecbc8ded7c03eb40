"""Which encoded rows are trained on: none is longer than the training takes, and none is without something to learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from squadron.core.errors import InputError
from squadron.train.objectives.layout import IGNORED

Row = Mapping[str, Any]
TooLong = Literal["refuse", "cut", "leave_out"]


@dataclass
class Fitting:
    """Takes rows of at most `limit` tokens, and counts the others.

    A row that is too long is cut, or left out. One that has nothing to learn is left out, whether it came so or was cut
    so: no target, an answer of no token, a pair of which both sides are the same. `packed`: both sides of a pair stand
    in one row of `limit` tokens; else `limit` is of each. With `causal`, nothing foretells a row's first token.
    """

    limit: int | None
    too_long: TooLong = "leave_out"
    packed: bool = False
    causal: bool = True
    seen: int = 0
    long: int = 0
    empty: int = 0
    longest: int = 0

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Those that are trained on."""
        for row in rows:
            if (fitted := self.fit(row)) is not None:
                yield fitted

    def fit(self, row: Row) -> Row | None:
        """The row as it is trained on; None if it is left out."""
        length = tokens(row, self.packed)
        self.seen, self.longest = self.seen + 1, max(self.longest, length)
        if self.limit is not None and length > self.limit:
            self.long += 1
            if self.too_long != "cut":
                return None
            row = cut(row, self.limit, self.packed)
        if not teaches(row, self.causal):
            self.empty += 1
            return None
        return row

    def add(self, other: Mapping[str, int]) -> None:
        """Count what another has counted of other rows."""
        self.seen, self.long, self.empty = (getattr(self, n) + other[n] for n in ("seen", "long", "empty"))
        self.longest = max(self.longest, other["longest"])

    def none_left(self, purpose: str, where: str, fix: str = "") -> InputError:
        """The error where no row is left."""
        found = "; ".join(f"{name}: {count}" for name, count in self.counts().items())
        raised = f"set {where}={self.longest} or more" if self.long else "give answers, or pairs that differ"
        return InputError(
            f"no row is left {purpose}: {found}", where=where, fix=" or ".join(filter(None, (raised, fix)))
        )

    def counts(self) -> dict[str, str]:
        """What became of rows that are not trained on as they were, in words, and how many of them there are."""
        done = {"refuse": "refused", "cut": "cut", "leave_out": "left out"}[self.too_long]
        found = {}
        if self.long:
            found[f"rows of more than {self.limit:,} tokens, {done}"] = f"{self.long:,} of {self.seen:,}"
        if self.empty:
            found["rows with nothing to learn, left out"] = f"{self.empty:,} of {self.seen:,}"
        return found


def tokens(row: Row, packed: bool = False) -> int:
    """Tokens of the row's longest sequence; `packed`, of all of them."""
    return int(row["packed_length"] if packed and "packed_length" in row else row["length"])


def cut(row: Row, limit: int, packed: bool = False) -> Row:
    """The row with what is over `limit` tokens taken off its end. A prompt is never cut, and may leave no answer."""
    if "prompt_ids" in row:
        asked, sides = len(row["prompt_ids"]), ("chosen_ids", "rejected_ids")
        room = max(0, limit - asked)
        if packed:  # the shorter side leaves its room to the other
            both = max(0, limit - 2 * asked)
            room = max(both // 2, both - min(len(row[side]) for side in sides))
        return {**row, **pair_row(row["prompt_ids"], *(row[side][:room] for side in sides))}
    if "chosen_ids" in row:
        return {**row, **reward_row(row["chosen_ids"][:limit], row["rejected_ids"][:limit])}
    if "label" in row:  # which is told by the last token
        return {**row, "input_ids": row["input_ids"][: limit - 1] + row["input_ids"][-1:], "length": limit}
    return {**row, **{name: row[name][:limit] for name in ("input_ids", "labels")}, "length": limit}


def pair_row(prompt: list[int], chosen: list[int], rejected: list[int]) -> dict[str, Any]:
    """A row of two answers to one prompt. `length` is that of the longer conversation, `packed_length` that of both."""
    longest = len(prompt) + max(len(chosen), len(rejected))
    both = 2 * len(prompt) + len(chosen) + len(rejected)
    ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    return {**ids, "length": longest, "packed_length": both}


def reward_row(chosen: list[int], rejected: list[int]) -> dict[str, Any]:
    """A row of two conversations, of which one is better."""
    lengths = len(chosen), len(rejected)
    return {"chosen_ids": chosen, "rejected_ids": rejected, "length": max(lengths), "packed_length": sum(lengths)}


def teaches(row: Row, causal: bool = True) -> bool:
    """Whether there is something to learn from a row."""
    if "chosen_ids" in row:
        sides = row["chosen_ids"], row["rejected_ids"]
        fewest = 1 if row.get("prompt_ids", True) else 2  # nothing foretells the first token of all
        return sides[0] != sides[1] and all(len(side) >= fewest for side in sides)
    if "label" in row:
        return bool(row["input_ids"])
    return any(label != IGNORED for label in row["labels"][int(causal) :])
