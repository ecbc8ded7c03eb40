"""Search by words: BM25, whose documents may change one at a time.

Words are cut by bm25s, and scores are those that bm25s gives, bit by bit. What bm25s computes once and for all is kept
here in a form that can change: how often each word stands in each document. New texts alone are cut into words; the
scores, which hang on the lengths of all documents, are computed again in one pass over arrays.

D documents, V words, N pairs of a document and a word in it, P of them in use for one query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from squadron.core.config import Config
from squadron.core.folder import RESTORE, Folder
from squadron.retrieval.ranking import Ranking, top

StopWords = Literal[
    "english", "english_plus", "german", "dutch", "french", "spanish", "portuguese", "italian", "russian", "swedish",
    "norwegian", "danish", "turkish", "chinese", "korean",
]  # fmt: skip
"""The lists that bm25s has."""


class Bm25Config(Config):
    """Which BM25, by Kamphuis et al. 2020, and which words count. Words are not stemmed."""

    method: Literal["lucene", "robertson", "atire", "bm25l", "bm25+"] = "lucene"
    k1: float = Field(1.5, ge=0, description="how slowly a word's repetition stops to count")
    b: float = Field(0.75, ge=0, le=1, description="how much a document's length counts")
    delta: float = Field(0.5, ge=0, description="of bm25l and bm25+ alone")
    document_stop_words: StopWords | None = Field("english", description="words left out of documents")
    query_stop_words: StopWords | None = Field(None, description="words left out of queries")


@dataclass(frozen=True, eq=False)
class Words:
    """The words of a corpus: `words_N[ends_D[d - 1]:ends_D[d]]` are numbers in the vocabulary, ascending, and
    `counts_N` how often each stands in the document d, which has `lengths_D[d]` words in all."""

    vocabulary: Sequence[str]
    words_N: np.ndarray
    counts_N: np.ndarray
    ends_D: np.ndarray
    lengths_D: np.ndarray

    def __len__(self) -> int:
        return len(self.ends_D)


class Bm25:
    """An index of texts. It never changes; `updated` gives another."""

    def __init__(self, texts: Sequence[str], config: Bm25Config | None = None, *, words: Words | None = None) -> None:
        """`words` are those of an earlier index of the same texts and stop words, which are then not read again."""
        self.config = config or Bm25Config()
        self.words = words if words is not None else _count(cut(texts, self.config.document_stop_words), {})
        self._scores_P, self._places_P, self._ends_V, self._missing_V = _score(self.words, self.config)
        used = np.flatnonzero(np.diff(self._ends_V)).tolist()  # others were in documents that are gone
        self._numbers = {self.words.vocabulary[number]: number for number in used}

    def __len__(self) -> int:
        return len(self.words)

    def updated(self, kept: Sequence[int], texts: Sequence[str]) -> Bm25:
        """The index of these of its documents, in this order, and of more texts after them. Only `texts` are read."""
        known = {word: number for number, word in enumerate(self.words.vocabulary)}
        added = _count(cut(texts, self.config.document_stop_words), known)
        return Bm25((), self.config, words=_joined(_taken(self.words, np.asarray(kept, np.int64)), added))

    def search(self, queries: Sequence[str], k: int, *, matching: bool = False) -> Ranking:
        """The `k` best documents of each query. A query in which no word is left has none at all. Documents without any
        of a query's words follow those with some, as bm25s has it: by place, with the score of the words' absence; with
        `matching` they are left out."""
        found = Ranking.empty(len(queries), min(k, len(self)))
        for row, words in enumerate(cut(queries, self.config.query_stop_words)):
            numbers = [self._numbers[word] for word in words if word in self._numbers]
            if words:
                scores_D = self._scores(numbers)
                places = top(scores_D, k)
                places = places[scores_D[places] > 0] if matching else places
                found.places_QK[row, : len(places)] = places
                found.scores_QK[row, : len(places)] = scores_D[places] + self._missing_V[numbers].sum()
        return found

    def scores(self, query: str) -> np.ndarray:
        """What each document scores for a query, (D,)."""
        (words,) = cut([query], self.config.query_stop_words)
        numbers = [self._numbers[word] for word in words if word in self._numbers]
        return self._scores(numbers) + self._missing_V[numbers].sum()

    def _scores(self, numbers: Sequence[int]) -> np.ndarray:
        """The sum of a query's words for each document, in their order."""
        parts = [slice(self._ends_V[number], self._ends_V[number + 1]) for number in numbers]
        scores_D = np.zeros(len(self), np.float32)
        if not parts:
            return scores_D
        places_P = np.concatenate([self._places_P[part] for part in parts])
        np.add.at(scores_D, places_P, np.concatenate([self._scores_P[part] for part in parts]))
        return scores_D


def write_words(place: Folder, words: Words, **more: np.ndarray) -> None:
    """Write the words of a corpus into a folder, with `more` arrays of it."""
    from safetensors.numpy import save

    arrays = {"words": words.words_N, "counts": words.counts_N, "ends": words.ends_D, "lengths": words.lengths_D}
    place.write_bytes("arrays.safetensors", save({**arrays, **more}))
    place.write_json("vocabulary.json", {"words": list(words.vocabulary)})


def read_words(place: Folder, fix: str = RESTORE) -> tuple[Words, dict[str, np.ndarray]]:
    """The words that were written, and the other arrays. Raises InputError, which says `fix`, for what is damaged."""
    from safetensors.numpy import load

    found = load(place.read_bytes("arrays.safetensors"))
    vocabulary = tuple(place.read_json("vocabulary.json", fix)["words"])
    words = Words(vocabulary, *(found.pop(name) for name in ("words", "counts", "ends", "lengths")))
    return words, found


def cut(texts: Sequence[str], stop_words: StopWords | None) -> list[list[str]]:
    """The words of each text, in lower case, in their order; words of one letter and `stop_words` are left out."""
    import bm25s

    if not texts:
        return []
    words: list[list[str]] = bm25s.tokenize(
        list(texts), stopwords=stop_words or [], return_ids=False, show_progress=False
    )
    return words


def _count(documents: Sequence[Sequence[str]], known: dict[str, int]) -> Words:
    """How often each word stands in each document. Words that are not `known` get the next numbers."""
    numbers = dict(known)
    words_M = np.fromiter((numbers.setdefault(word, len(numbers)) for words in documents for word in words), np.int64)
    lengths_D = np.fromiter(map(len, documents), np.int64, len(documents))
    place_M = np.repeat(np.arange(len(documents)), lengths_D)
    pairs_N, counts_N = np.unique(place_M * max(len(numbers), 1) + words_M, return_counts=True)
    place_N, words_N = np.divmod(pairs_N, max(len(numbers), 1))
    ends_D = np.cumsum(np.bincount(place_N, minlength=len(documents)))
    return Words(tuple(numbers), words_N.astype(np.int32), counts_N.astype(np.int32), ends_D, lengths_D)


def _taken(words: Words, kept_D: np.ndarray) -> Words:
    """The words of some documents, in another order."""
    sizes_D = np.diff(words.ends_D, prepend=0)[kept_D]
    ends_D = np.cumsum(sizes_D)
    first_D = words.ends_D[kept_D] - sizes_D
    place_N = np.arange(ends_D[-1] if len(ends_D) else 0) + np.repeat(first_D - (ends_D - sizes_D), sizes_D)
    return Words(words.vocabulary, words.words_N[place_N], words.counts_N[place_N], ends_D, words.lengths_D[kept_D])


def _joined(first: Words, second: Words) -> Words:
    """The words of two corpora, of which the second's vocabulary goes on from that of the first."""
    return Words(
        second.vocabulary,
        np.concatenate([first.words_N, second.words_N]),
        np.concatenate([first.counts_N, second.counts_N]),
        np.concatenate([first.ends_D, second.ends_D + len(first.words_N)]),
        np.concatenate([first.lengths_D, second.lengths_D]),
    )


def _score(words: Words, config: Bm25Config) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What each word adds to the score of each document that holds it, with these documents, word by word, and where
    the next word begins; and what it adds to all others.

    The types and the order of operations are those of bm25s, so that its rounding is.
    """
    from scipy.sparse import csr_matrix

    documents, vocabulary = len(words), len(words.vocabulary)
    mean: np.float64 = words.lengths_D.mean() if documents else np.float64(0)
    frequency_V = np.bincount(words.words_N, minlength=vocabulary)
    idf_V = np.where(frequency_V > 0, _idf(np.maximum(frequency_V, 1), documents, config.method), 0)
    sizes_D = np.diff(words.ends_D, prepend=0)
    length_N = np.repeat(words.lengths_D, sizes_D)
    missing_V = np.zeros(vocabulary, np.float32)
    scores_N = idf_V.astype(np.float32)[words.words_N] * _tf(words.counts_N.astype(np.float32), length_N, mean, config)
    if config.method in ("bm25l", "bm25+") and mean:
        missing_V = (idf_V * _tf(np.zeros(1), mean, mean, config)).astype(np.float32)
        scores_N = scores_N - missing_V[words.words_N]
    starts = np.concatenate([[0], words.ends_D])
    by_word = csr_matrix((scores_N.astype(np.float32), words.words_N, starts), (documents, vocabulary)).tocsc()
    return by_word.data, by_word.indices.astype(np.intp), by_word.indptr.astype(np.int64), missing_V


def _idf(frequency_V: np.ndarray, documents: int, method: str) -> np.ndarray:
    """How much a word counts that stands in so many of the documents (Kamphuis et al. 2020, table 1)."""
    match method:
        case "robertson":  # negative for a word in more than half of them, which then counts nothing
            return np.log(np.maximum((documents - frequency_V + 0.5) / (frequency_V + 0.5), 1))
        case "atire":
            return np.log(max(documents, 1) / frequency_V)
        case "bm25l":
            return np.log((documents + 1) / (frequency_V + 0.5))
        case "bm25+":
            return np.log((documents + 1) / frequency_V)
    return np.log(1 + (documents - frequency_V + 0.5) / (frequency_V + 0.5))


def _tf(counts_N: np.ndarray, length_N: np.ndarray | float, mean: float, config: Bm25Config) -> np.ndarray:
    """How much it counts that a word stands so often in a document of this length (the same table)."""
    k1, b, delta = config.k1, config.b, config.delta
    match config.method:
        case "atire":
            return (counts_N * (k1 + 1)) / (counts_N + k1 * (1 - b + b * length_N / mean))
        case "bm25l":
            scaled_N = counts_N / (1 - b + b * length_N / mean)
            return ((k1 + 1) * (scaled_N + delta)) / (k1 + scaled_N + delta)
        case "bm25+":
            return ((k1 + 1) * counts_N) / (k1 * (1 - b + b * length_N / mean) + counts_N) + delta
    return counts_N / (k1 * ((1 - b) + b * length_N / mean) + counts_N)
