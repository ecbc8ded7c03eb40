"""Which queries train an embedder and which test it, which are drawn, and what stands against them. Pure functions.

N queries, C clusters of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from squadron.data.clustering import hash_ids
from squadron.retrieval.documents import Document, Query
from squadron.retrieval.ranking import Searcher


@dataclass(frozen=True)
class Split:
    """Queries (by their places) of tools that may be learned from, and of tools that are kept out, by id.

    A query of which some tools are kept out and others are not is in neither: it would show a tool that is to be
    unknown, or ask for one that is known.
    """

    known: tuple[int, ...]
    unseen: tuple[int, ...]
    mixed: tuple[int, ...]
    kept_out: frozenset[str]


def split_by_tool(queries: Sequence[Query], texts: Mapping[str, str], share: float, seed: int) -> Split:
    """Keep out a share of the tools that queries need, `texts` being those of all tools; tools of equal text go
    together. The order of tools and queries decides nothing."""
    needed = sorted({texts[name] for query in queries for name in query.relevant})
    order = np.argsort(hash_ids(needed, f"kept out {seed} "), kind="stable") if needed else np.zeros(0, int)
    hidden = {needed[place] for place in order[: round(share * len(needed))]}
    kept_out = frozenset(name for name, text in texts.items() if text in hidden)
    of: dict[str, list[int]] = {"known": [], "unseen": [], "mixed": []}
    for place, query in enumerate(queries):
        out = sum(name in kept_out for name in query.relevant)
        of["known" if not out else "unseen" if out == len(query.relevant) else "mixed"].append(place)
    return Split(tuple(of["known"]), tuple(of["unseen"]), tuple(of["mixed"]), kept_out)


def draw_evenly(cluster_N: np.ndarray, ids: Sequence[str], count: int, seed: int) -> np.ndarray:
    """The places of so many rows, in turns from each cluster that has any left, in an order that does not depend on
    that of the rows; all where there are fewer."""
    rank_N = hash_ids(ids, f"drawn {seed} ")
    turn_N = np.empty(len(ids), np.int64)
    for cluster in np.unique(cluster_N):
        some = np.flatnonzero(cluster_N == cluster)
        turn_N[some[np.argsort(rank_N[some], kind="stable")]] = np.arange(len(some))
    return np.lexsort((rank_N, turn_N))[:count]


def mine(
    searcher: Searcher,
    tools: Sequence[Document],
    asked: Sequence[str],
    queries: Sequence[Query],
    count: int,
    skip: int,
    above: float = -math.inf,
) -> list[list[str]]:
    """Hard negatives of each query: the texts of the best tools that do not answer it, best first, each text once.

    `searcher` ranks `tools` for what is `asked`. The `skip` best of them are passed over, since they may answer it,
    too. Tools whose text is that of one that answers are left out, whatever they are called, and so are tools that do
    not score `above`.
    """
    text_of = {tool.id: tool.text for tool in tools}
    most = max((len(query.relevant) for query in queries), default=0)
    twins = len(tools) - len(set(text_of.values()))
    found = searcher.search(list(asked), min(len(tools), count + skip + most + twins))
    negatives = []
    for query, places_K, scores_K in zip(queries, found.places_QK, found.scores_QK, strict=True):
        answers = {text_of[name] for name in query.relevant if name in text_of}
        texts = dict.fromkeys(tools[place].text for place in places_K[(places_K >= 0) & (scores_K > above)])
        negatives.append([text for text in texts if text not in answers][skip : skip + count])
    return negatives


def fill_negatives(negatives: list[list[str]], texts: Sequence[str], answers: Sequence[set[str]], count: int) -> None:
    """Random texts where a search found too few, such as words that no tool has; drawn by the place of the query."""
    for place, (found, own) in enumerate(zip(negatives, answers, strict=True)):
        if len(found) < count:
            order = np.random.default_rng([place, count]).permutation(len(texts))
            more = (texts[n] for n in order if texts[n] not in own and texts[n] not in found)
            found += [text for text, _ in zip(dict.fromkeys(more), range(count - len(found)), strict=False)]
