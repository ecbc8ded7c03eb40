"""Documents ordered by a chat model, a window at a time (RankGPT, Sun et al. 2023)."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence

from squadron.core.blanks import fill_in
from squadron.llm.batch.programs import Ask
from squadron.llm.chat import ChatReply, ChatRequest, user
from squadron.retrieval.rerankers import ListwiseReranker

_CHAIN = re.compile(r"\[\d+\](?:\s*>\s*\[\d+\])+")


def window_starts(count: int, window: int, step: int) -> list[int]:
    """Where the windows over so many documents begin, the last documents first. The first documents are in the last
    window, also where the steps do not come out even."""
    starts = list(range(count - window, 0, -step))
    return [*starts, 0] if count > 1 else []


def read_order(text: str, count: int) -> tuple[list[int], bool]:
    """The order that an answer gives `count` documents, by their numbers from 0, and whether it is an order of all.

    The last chain `[2] > [1] > …` counts. Numbers of no document and repeated ones are left out, and documents that the
    chain misses stand behind it in their old order; so do all where there is no chain.
    """
    chains = _CHAIN.findall(text)
    named = [int(number) - 1 for number in re.findall(r"\d+", chains[-1])] if chains else []
    order = list(dict.fromkeys(place for place in named if 0 <= place < count))
    missed = [place for place in range(count) if place not in order]
    return order + missed, len(named) == count and not missed


def order_by_windows(
    settings: ListwiseReranker, model: str, query: str, documents: Sequence[str]
) -> Generator[Ask, Sequence[ChatReply], tuple[list[int], int, str]]:
    """A program that orders documents: it asks `model` and returns their places, the best first, how many answers were
    no order of all documents, and why it ended where a question failed."""
    order, repaired = list(range(len(documents))), 0
    for start in window_starts(len(documents), settings.window, settings.step) * settings.passes:
        places = order[start : start + settings.window]
        question = _question(settings, query, [documents[place] for place in places])
        (reply,) = yield Ask(model, (ChatRequest("", user(question), settings.sampling),))
        if not reply.ok:
            return order, repaired, reply.error
        found, whole = read_order(reply.text, len(places))
        order[start : start + settings.window] = [places[place] for place in found]
        repaired += not whole
    return order, repaired, ""


def _question(settings: ListwiseReranker, query: str, documents: Sequence[str]) -> str:
    listed = "\n".join(f"[{number}] {' '.join(text.split())}" for number, text in enumerate(documents, 1))
    return fill_in(settings.prompt, query=query, documents=listed, count=len(documents))
