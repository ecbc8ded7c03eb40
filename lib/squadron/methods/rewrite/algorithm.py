"""Rewrite and Fusion: one function over the last k turns of a conversation (arXiv 2502.18860).

A conversation is a generator: it yields the turn that is to be rewritten and is sent its rewrite. So turns of one
conversation follow each other, and conversations run at the same time, whoever rewrites.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple

from squadron.methods.rewrite.config import FirstTurn, Setting
from squadron.methods.rewrite.records import Conversation, Pair, Turn

Needs = Callable[[Sequence[Turn]], Sequence[bool]]
"""Which queries need their conversation to be understood."""


class Answer(NamedTuple):
    """What a turn is sent: its rewrite, None where that failed, or the query itself, which nobody was asked about."""

    text: str | None
    asked: bool = True


class Outcome(NamedTuple):
    """What became of a turn: its rewrite, and whether the rewriter was asked for it. Without an answer the query itself
    stands there, and `failed` is true."""

    number: int
    rewrite: str
    asked: bool
    failed: bool = False


Rewriting = Generator[Turn, Answer, list[Outcome]]


def context(inputs: Sequence[str], outputs: Sequence[str], k: int) -> tuple[Pair, ...]:
    """Exactly the last min(k, t) of t pairs of an input and its output, the earliest first."""
    first = max(0, len(inputs) - k)
    return tuple(Pair(*pair) for pair in zip(inputs[first:], outputs[first:], strict=True))


def rewrite_conversation(
    conversation: Conversation,
    setting: Setting,
    first_turn: FirstTurn = "passed",
    wrong: Mapping[int, Pair] | None = None,
) -> Rewriting:
    """Yield the turns of a conversation that are to be rewritten, are sent the rewrites, and return all outcomes.

    The outputs that a rewriter is shown are the log's responses (Rewrite), or its own rewrites (Fusion). Rewrite leaves
    out turns that are not measured; Fusion needs them. `first_turn` says whether a query without history is asked
    about, or passes as it is. A turn in `wrong` has this rewrite and this response in place of its own.
    """
    fused = setting.strategy == "fusion"
    inputs: list[str] = []
    outputs: list[str] = []
    outcomes: list[Outcome] = []
    last = max((place for place, said in enumerate(conversation.turns) if said.measured), default=-1)
    for place, said in enumerate(conversation.turns[: last + 1]):
        number, outcome = place + 1, None
        turn = Turn(conversation.key, number, context(inputs, outputs, setting.k), said.query)
        if fault := (wrong or {}).get(number):
            outcome = Outcome(number, fault.query, asked=False)
        elif said.measured or fused:
            if turn.history or first_turn == "asked":
                answer = yield turn
                outcome = Outcome(number, answer.text or said.query, answer.asked, failed=not answer.text)
            else:
                outcome = Outcome(number, said.query, asked=False)
        if outcome is not None and said.measured:
            outcomes.append(outcome)
        inputs.append(said.query)
        if fused:
            assert outcome is not None
            outputs.append(outcome.rewrite)
        else:
            outputs.append(fault.response if fault else said.response)
    return outcomes


def run_together(
    conversations: Sequence[Rewriting],
    rewrite: Callable[[Sequence[Turn]], Sequence[str | None]],
    needs: Needs | None = None,
) -> list[list[Outcome]]:
    """Run conversations to their ends: one turn of each at a time, all of them in one call of `rewrite`, save those
    that by `needs` need no rewrite."""
    results: list[list[Outcome]] = [[] for _ in conversations]
    waiting: dict[int, Turn] = {}

    def advance(place: int, answer: Answer | None) -> None:
        try:
            waiting[place] = next(conversations[place]) if answer is None else conversations[place].send(answer)
        except StopIteration as end:
            waiting.pop(place, None)
            results[place] = end.value

    for place in range(len(conversations)):
        advance(place, None)
    while waiting:
        places = list(waiting)
        for place, answer in zip(places, answers([waiting[place] for place in places], rewrite, needs), strict=True):
            advance(place, answer)
    return results


def answers(
    turns: Sequence[Turn], rewrite: Callable[[Sequence[Turn]], Sequence[str | None]], needs: Needs | None
) -> list[Answer]:
    """The rewrites of turns, where those that need none pass."""
    needed = [True] * len(turns) if needs is None else list(needs(turns))
    asked = [turn for turn, one in zip(turns, needed, strict=True) if one]
    rewrites = iter(rewrite(asked) if asked else ())
    return [
        Answer(next(rewrites)) if one else Answer(turn.query, asked=False)
        for turn, one in zip(turns, needed, strict=True)
    ]
