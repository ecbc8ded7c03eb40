"""The best documents of a ranking, ordered again by a model that reads query and document together.

    with open_reranker(CrossEncoderReward(path="cross-encoder/ms-marco-MiniLM-L6-v2")) as reranker:
        ranking = rerank(queries, texts, ranking, reranker, depth=100)

On a cluster `rerank_all` does the same: every score and every answer of a chat model is on record under the content of
what was asked, so that a run that is killed asks nothing twice. Q queries, K documents of a query.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from squadron.core.errors import InputError, ResourceError
from squadron.core.run import Stage
from squadron.llm.batch.budget import Budget
from squadron.llm.batch.model_client import Item, Reply, Served, answer, open_served, reply_of
from squadron.llm.batch.programs import Ask, run_programs
from squadron.llm.chat import Closing
from squadron.llm.rewards.judge import UNREADABLE
from squadron.llm.rewards.reward import Answered
from squadron.retrieval.listwise import order_by_windows
from squadron.retrieval.ranking import Ranking
from squadron.retrieval.rerankers import AnyReranker, ListwiseReranker

_MODEL = "reranker"


@dataclass(frozen=True)
class Reranked:
    """A ranking. `repaired` answers of a chat model could not be read, or were no order of all documents that they were
    asked about: what they leave open stands as before. Queries in `failed`, by their places and each with why, are in
    the old order as a whole, and count for no measure."""

    ranking: Ranking
    repaired: int = 0
    failed: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scores:
    """A query's scores, of its documents in their old order; or why there are none."""

    values: Sequence[float] = ()
    repaired: int = 0
    error: str = ""


_Program = Generator[Ask, Sequence[Any], _Scores]


class Reranker(Closing):
    """A reranker that is open. `repaired` counts what `Reranked` does, over all that it has ranked."""

    def __init__(self, settings: AnyReranker, model: Any) -> None:
        self.settings, self._model = settings, model
        self.repaired = 0

    def answer(self, items: Sequence[Item]) -> list[Reply]:
        """What the model says to each of these, in their order."""
        named = [replace(item, key=str(number)) for number, item in enumerate(items)]
        entries = {entry["key"]: entry for entry in answer(self._model, named)}
        return [reply_of(item, entries[item.key]) for item in named]

    def close(self) -> None:
        self._model.close()


def open_reranker(settings: AnyReranker, budget: Budget | None = None) -> Reranker:
    """The reranker of these settings, loaded. Raises ModelUnavailable or ConfigError if it cannot be used."""
    return Reranker(settings, open_served(_served(settings), budget))


def rerank(
    queries: Sequence[str], texts: Sequence[str], ranking: Ranking, reranker: Reranker, depth: int = 100
) -> Ranking:
    """The first `depth` documents of each query in the order of the reranker, then the others in their old order.

    `texts` are those of the corpus that `ranking` has places in. Equal scores keep the old order. The scores fall
    without ties: those of the reranker, then the old ones moved below them; of a list-wise reranker, 1 / rank.

    Raises ResourceError if a query cannot be ranked: a model that fails for good, or a query longer than it reads.
    """
    programs = [make() for make in _programs(queries, texts, ranking, reranker.settings, depth)]
    found = _run_here(programs, reranker)
    if failed := [(place, one.error) for place, one in enumerate(found) if one.error]:
        place, error = failed[0]
        what = f"{len(failed):,} of {len(queries):,} queries were not reranked"
        raise ResourceError(what, where=f"query {place} (counted from 0): {error}")
    reranker.repaired += sum(one.repaired for one in found)
    return reorder(ranking, [one.values for one in found])


def rerank_all(
    stage: Stage,
    ids: Sequence[str],
    queries: Sequence[str],
    texts: Sequence[str],
    ranking: Ranking,
    settings: AnyReranker,
    depth: int = 100,
    *,
    timeout_s: float = 3600.0,
    cap_usd: float | None = None,
) -> Reranked:
    """As `rerank`, by workers of the cluster. A query that fails is a failed row of the stage, by its id, and the next
    run asks again for what it lacks.

    Raises InputError for ids that occur twice, ResourceError if a model cannot be used, or what this run folder has
    cost reaches `cap_usd`.
    """
    if repeated := [name for name, count in Counter(ids).items() if count > 1]:
        raise InputError(f"{len(repeated)} ids of queries occur more than once", where=", ".join(repeated[:5]))
    programs = dict(zip(ids, _programs(queries, texts, ranking, settings, depth), strict=True))
    found = run_programs(
        stage, programs, {_MODEL: _served(settings)}, unit="query", timeout_s=timeout_s, cap_usd=cap_usd
    )
    failed = {place: one.error for place, one in enumerate(found.values()) if one.error}
    for place, error in failed.items():
        stage.fail(ids[place], error)
    values = [one.values for one in found.values()]
    return Reranked(reorder(ranking, values), sum(one.repaired for one in found.values()), failed)


def reorder(ranking: Ranking, scores: Sequence[Sequence[float]]) -> Ranking:
    """The ranking with the first documents of each query, as many as have scores, ordered by these."""
    places_QK, scores_QK = ranking.places_QK.copy(), ranking.scores_QK.astype(np.float32)
    for row, values in enumerate(scores):
        if not (count := len(values)):
            continue
        order = np.argsort(-np.asarray(values, np.float32), kind="stable")
        places_QK[row, :count] = ranking.places_QK[row, order]
        last = np.float32(values[order[-1]])
        if count < scores_QK.shape[1]:
            scores_QK[row, count:] += last - 1 - ranking.scores_QK[row, count] if places_QK[row, count] >= 0 else 0
        scores_QK[row, :count] = np.asarray(values, np.float32)[order]
    # No ties, which whoever measures the ranking would break in another way.
    for place in range(1, scores_QK.shape[1]):
        scores_QK[:, place] = np.minimum(scores_QK[:, place], np.nextafter(scores_QK[:, place - 1], -np.inf))
    return Ranking(places_QK, scores_QK)


def _served(settings: AnyReranker) -> Served:
    return settings.model if isinstance(settings, ListwiseReranker) else settings


def _programs(
    queries: Sequence[str], texts: Sequence[str], ranking: Ranking, settings: AnyReranker, depth: int
) -> list[Callable[[], _Program]]:
    """What makes the program that ranks each query."""
    most = getattr(settings, "max_words", None)
    programs: list[Callable[[], _Program]] = []
    for query, places in zip(queries, ranking.places_QK[:, :depth].tolist(), strict=True):
        documents = [_first_words(texts[place], most) for place in places if place >= 0]
        if isinstance(settings, ListwiseReranker):
            programs.append(partial(_by_list, settings, query, documents))
        else:
            programs.append(partial(_by_pairs, query, documents))
    return programs


def _by_pairs(query: str, documents: Sequence[str]) -> _Program:
    replies = yield Ask(_MODEL, tuple(Answered("", query, text) for text in documents))
    missing = [reply.error for reply in replies if reply.value is None]
    failed = [error for error in missing if not error.startswith(UNREADABLE)]
    if failed or len(missing) == len(replies) > 0:
        return _Scores(error=f"{len(missing)} of {len(replies)} documents have no score: {(failed or missing)[0]}")
    return _Scores(_filled([reply.value for reply in replies]), len(missing))


def _filled(values: Sequence[float | None]) -> list[float]:
    """Documents without a score have that of the one before them in the old order, the first ones that of the first
    that has one: they stay next to it."""
    last = next((value for value in values if value is not None), 0.0)
    return [last := last if value is None else value for value in values]


def _by_list(settings: ListwiseReranker, query: str, documents: Sequence[str]) -> _Program:
    order, repaired, error = yield from order_by_windows(settings, _MODEL, query, documents)
    if error:
        return _Scores(repaired=repaired, error=error)
    values = [0.0] * len(order)
    for rank, place in enumerate(order, 1):
        values[place] = 1 / rank
    return _Scores(values, repaired)


def _run_here(programs: Sequence[_Program], reranker: Reranker) -> list[_Scores]:
    """What each program returns. They run side by side: what they ask next is asked together."""
    results: dict[int, _Scores] = {}
    sent: dict[int, Sequence[Reply] | None] = dict.fromkeys(range(len(programs)))
    while sent:
        asks: dict[int, tuple[Item, ...]] = {}
        for place, replies in sent.items():
            try:
                asks[place] = programs[place].send(replies).items  # type: ignore[arg-type]
            except StopIteration as end:
                results[place] = end.value
        said = iter(reranker.answer([item for items in asks.values() for item in items]))
        sent = {place: [next(said) for _ in items] for place, items in asks.items()}
    return [results[place] for place in range(len(programs))]


def _first_words(text: str, most: int | None) -> str:
    words = text.split(maxsplit=most) if most is not None else []
    return text if most is None or len(words) <= most else " ".join(words[:most])
