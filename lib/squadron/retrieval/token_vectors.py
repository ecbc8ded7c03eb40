"""Token vectors of a corpus on disk, and the exact late interaction of queries with them (MaxSim, Khattab and Zaharia
2020).

    NAME.npy           float16 [N, D]: the vectors of all tokens, one document after the other
    NAME.lengths.npy   int32 [documents]: how many tokens each has

A corpus may be in several such parts. They are mapped into memory, and so are shared by all processes of a node.
Q queries, T tokens of a query, D dimensions, N tokens of documents, B documents, K documents of a query.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.retrieval.ranking import Ranking, best, merge

_SIMILARITIES = 2**24
"""Of tokens of queries and of documents, that are in memory at a time."""
_QUERIES = 16


def write_part(folder: Folder, name: str, documents: Sequence[np.ndarray]) -> int:
    """Write the token vectors of some documents, [tokens, D] each, and return how many tokens there are. Raises
    InputError for a document without any."""
    lengths = np.array([len(vectors) for vectors in documents], np.int32)
    if not lengths.all():
        raise InputError(f"document {int(np.argmin(lengths))} (counted from 0) has no token vectors", where=name)
    _put(folder, f"{name}.lengths.npy", lengths)
    _put(folder, f"{name}.npy", np.concatenate(documents).astype(np.float16))
    return int(lengths.sum())


class TokenVectors:
    """The token vectors of a corpus, in these parts of a folder. Raises InputError where they do not agree."""

    def __init__(self, folder: Folder, names: Sequence[str]) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        for name in names:
            vectors_ND = np.load(folder.local(f"{name}.npy"), mmap_mode="r", allow_pickle=False)
            lengths_B = np.load(folder.local(f"{name}.lengths.npy"), allow_pickle=False)
            if vectors_ND.ndim != 2 or len(vectors_ND) != lengths_B.sum():
                what = f"{len(vectors_ND):,} token vectors, where documents have {int(lengths_B.sum()):,}"
                raise InputError(what, where=folder.file(name), fix="encode the corpus again")
            self._parts.append((vectors_ND, np.concatenate([[0], np.cumsum(lengths_B)])))
        self._firsts = np.cumsum([0] + [len(bounds) - 1 for _, bounds in self._parts])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def document(self, place: int) -> np.ndarray:
        """float16 [tokens, D]."""
        part = int(np.searchsorted(self._firsts, place, "right")) - 1
        vectors_ND, bounds = self._parts[part]
        inside = place - self._firsts[part]
        return vectors_ND[bounds[inside] : bounds[inside + 1]]

    def search(self, queries_QTD: np.ndarray, k: int) -> Ranking:
        """The `k` best documents of each query among all, by MaxSim. Tokens that are zero count nothing."""
        rankings = [self._search(queries_QTD[at : at + _QUERIES], k) for at in range(0, len(queries_QTD), _QUERIES)]
        if not rankings:
            return Ranking(np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
        return Ranking(
            np.concatenate([one.places_QK for one in rankings]), np.concatenate([one.scores_QK for one in rankings])
        )

    def score(self, query_TD: np.ndarray, places: Sequence[int]) -> np.ndarray:
        """MaxSim of one query and each of these documents, [len(places)]."""
        if not len(places):
            return np.empty(0, np.float32)
        documents = [self.document(place) for place in places]
        bounds = np.cumsum([0] + [len(vectors) for vectors in documents])
        return max_sim(query_TD[None], np.concatenate(documents), bounds)[0]

    def _search(self, queries_QTD: np.ndarray, k: int) -> Ranking:
        most = max(1, _SIMILARITIES // max(1, queries_QTD.shape[0] * queries_QTD.shape[1]))
        found: Ranking | None = None
        for first, vectors_ND, bounds in self._blocks(most):
            block = best(max_sim(queries_QTD, vectors_ND, bounds), k)
            found = merge([block], [first], k) if found is None else merge([found, block], [0, first], k)
        empty = np.empty((len(queries_QTD), 0))
        return found or Ranking(empty.astype(np.int64), empty.astype(np.float32))

    def _blocks(self, most: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """The corpus in blocks of about so many tokens, one document at least: the first one's place, the vectors, and
        where each document begins and the last one ends."""
        for first, (vectors_ND, bounds) in zip(self._firsts, self._parts, strict=False):
            start = 0
            while start < len(bounds) - 1:
                end = max(start + 1, int(np.searchsorted(bounds, bounds[start] + most, "right")) - 1)
                yield (
                    int(first) + start,
                    vectors_ND[bounds[start] : bounds[end]],
                    bounds[start : end + 1] - bounds[start],
                )
                start = end


def max_sim(queries_QTD: np.ndarray, vectors_ND: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The sum over a query's tokens of each one's largest similarity to a token of the document, [Q, B].

    `bounds` [B + 1] says where each document's tokens begin and the last one's end; none is empty.
    """
    count, tokens, dimensions = queries_QTD.shape
    flat = np.asarray(queries_QTD, np.float32).reshape(-1, dimensions)
    similar = flat @ np.asarray(vectors_ND, np.float32).T
    largest: np.ndarray = np.maximum.reduceat(similar, bounds[:-1], axis=1)
    total: np.ndarray = largest.reshape(count, tokens, -1).sum(1)
    return total


def _put(folder: Folder, name: str, array: Any) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "array.npy")
        np.save(path, array)
        folder.put(name, path)
