"""Step by step, the best of several candidates by pairwise judgement, stepping back where the judge sees no difference.

Step-wise preference generation of Process-based Self-Rewarding Language Models, arXiv 2503.03746.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Annotated, Any, Literal

from pydantic import Field

from squadron.core.config import Config
from squadron.core.rehearsal import AtMost
from squadron.search.asks import Compare, Preference, Propose, Steps, Verdict

Credit = Literal["each_order", "both_orders"]
Outcome = Literal["step", "same", "rolled_back", "dropped"]
Contest = tuple[str, str]


class StepSearchConfig(Config):
    """How wide and how long to search, and what a verdict is worth."""

    width: Annotated[int, AtMost(3)] = Field(6, ge=2, description="candidates a step")
    max_iterations: Annotated[int, AtMost(3)] = Field(
        20, ge=1, description="iterations of one problem, those that stepped back included"
    )
    credit: Credit = Field(
        "both_orders",
        description="both_orders: a step wins a contest that it wins whether shown first or second; "
        "each_order: every call that prefers the step shown first counts for it, the paper's formula read literally",
    )
    identical: Literal["accept", "roll_back"] = Field(
        "accept",
        description="all candidates say the same: accept it without a preference, or roll back as after a tie",
    )


@dataclass(frozen=True)
class Turn:
    """One iteration: the candidates after `steps`, their scores (None without a candidate), and what came of them.

    `chosen` and `rejected` are positions in `candidates`. `contests` are (shown first, shown second, verdict).
    """

    steps: Steps
    candidates: tuple[str | None, ...]
    scores: tuple[int | None, ...]
    chosen: int | None
    rejected: int | None
    outcome: Outcome
    contests: tuple[tuple[str, str, Verdict], ...]

    @property
    def step(self) -> str | None:
        """The step taken, if one was."""
        return None if self.chosen is None else self.candidates[self.chosen]

    @property
    def preference(self) -> Preference | None:
        """The best candidate over the worst, if the judge told them apart."""
        worst = None if self.rejected is None else self.candidates[self.rejected]
        return None if self.step is None or worst is None else Preference(self.steps, self.step, worst)


@dataclass(frozen=True)
class Found:
    """The steps that the search ended with, their preferences (at most one a step), and every turn it took."""

    steps: Steps
    preferences: tuple[Preference, ...]
    turns: tuple[Turn, ...]
    ended: Literal["finished", "iterations", "dropped"]


def search_steps(
    config: StepSearchConfig, is_last: Callable[[str], bool]
) -> Generator[Propose | Compare, Sequence[Any], Found]:
    """Search for one problem's steps and for preferences between candidates of each.

    An iteration proposes candidates, judges them in pairs, takes the best as the next step and prefers it to the worst.
    Where all scores are equal, or no candidate is usable, the step before is discarded together with its preference;
    with no step before, the problem is dropped. It ends when `is_last` holds for the step taken, or after
    `max_iterations` with the steps and preferences that are left.

    The paper counts a win for the preferred step, and leaves open whether a contest is judged in both orders. With
    each order counted by itself, a judge that leans to one side gives wins to both steps of a contest that it cannot
    decide, and more of them to texts that were proposed seldom: hence `credit="both_orders"`.

    Nor does the paper say what happens when all candidates are one and the same text. They are taken as the step
    without a preference (`identical="accept"`), since identical candidates express no doubt.

    Raises ValueError where an answer does not fit what was asked.
    """
    kept: list[Turn] = []
    turns: list[Turn] = []
    for iteration in range(config.max_iterations):
        steps = _steps(kept)
        candidates = yield Propose(steps, config.width, iteration)
        if len(candidates) != config.width:
            raise ValueError(f"{len(candidates)} candidates where {config.width} were asked for")
        verdicts = yield from _compare(steps, contests(candidates))
        turn = take_turn(config, steps, candidates, verdicts)
        turns.append(turn)
        if turn.outcome == "dropped":
            return _found(kept, turns, "dropped")
        if turn.outcome == "rolled_back":
            kept.pop()
            continue
        kept.append(turn)
        if turn.step is not None and is_last(turn.step):
            return _found(kept, turns, "finished")
    return _found(kept, turns, "iterations")


def contests(candidates: Sequence[str | None]) -> tuple[Contest, ...]:
    """Every ordered pair of distinct texts, in the order in which they first occur: w(w−1) for w different ones."""
    return tuple(permutations(dict.fromkeys(text for text in candidates if text is not None), 2))


def scores(
    candidates: Sequence[str | None], verdicts: Mapping[Contest, Verdict], credit: Credit
) -> tuple[int | None, ...]:
    """How many of the others each candidate beats; None without a candidate.

    Candidates of the same text share its verdicts: beating a text that occurs twice counts twice, and no text beats
    itself. A missing verdict counts for nobody.
    """
    texts = [text for text in candidates if text is not None]
    return tuple(
        None if text is None else sum(_beats(text, other, verdicts, credit) for other in texts) for text in candidates
    )


def best_and_worst(scores: Sequence[float | None]) -> tuple[int, int] | None:
    """Positions of the highest and the lowest score, the first among equals; None if no two scores differ."""
    there = {place: score for place, score in enumerate(scores) if score is not None}
    if len(set(there.values())) < 2:
        return None
    return max(there, key=there.__getitem__), min(there, key=there.__getitem__)


def take_turn(
    config: StepSearchConfig, steps: Steps, candidates: Sequence[str | None], verdicts: Mapping[Contest, Verdict]
) -> Turn:
    """Score the candidates and decide what becomes of them."""
    marks = scores(candidates, verdicts, config.credit)
    extremes = best_and_worst(marks)
    chosen: int | None = None
    rejected: int | None = None
    outcome: Outcome = "rolled_back" if steps else "dropped"
    if extremes is not None:
        (chosen, rejected), outcome = extremes, "step"
    elif config.identical == "accept" and len(set(candidates) - {None}) == 1:
        chosen = next(place for place, text in enumerate(candidates) if text is not None)
        outcome = "same"
    judged = tuple((first, second, verdict) for (first, second), verdict in verdicts.items())
    return Turn(steps, tuple(candidates), marks, chosen, rejected, outcome, judged)


def _compare(steps: Steps, pairs: tuple[Contest, ...]) -> Generator[Compare, Sequence[Any], dict[Contest, Verdict]]:
    if not pairs:
        return {}
    verdicts = dict(zip(pairs, (yield Compare(steps, pairs)), strict=True))
    strange = [verdict for verdict in verdicts.values() if verdict not in ("first", "second", None)]
    if strange:
        raise ValueError(f"{strange[0]!r} is no verdict")
    return verdicts


def _beats(text: str, other: str, verdicts: Mapping[Contest, Verdict], credit: Credit) -> bool:
    shown_first = verdicts.get((text, other)) == "first"
    return shown_first and (credit == "each_order" or verdicts.get((other, text)) == "second")


def _steps(kept: Sequence[Turn]) -> Steps:
    return tuple(turn.step for turn in kept if turn.step is not None)


def _found(kept: Sequence[Turn], turns: Sequence[Turn], ended: Literal["finished", "iterations", "dropped"]) -> Found:
    preferences = tuple(turn.preference for turn in kept if turn.preference is not None)
    return Found(_steps(kept), preferences, tuple(turns), ended)
