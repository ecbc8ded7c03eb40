"""Words and characters in common with a reference: BLEU, chrF and TER, counted by sacrebleu, and METEOR, by nltk.

N segments, K statistics each: what the library counts in the segment, and 1, or all 0 where there is no reference. R
sums of statistics are R corpora. The libraries' own scores of sentences and corpora are computed here on arrays, for
resamples by the thousand.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from squadron.evaluate.translation.means import Mean
from squadron.evaluate.translation.segments import Segment
from squadron.evaluate.translation.settings import (
    BleuMetric,
    ChrfMetric,
    MeteorMetric,
    TerMetric,
)

_ORDERS = 4
_CHARACTER_ORDERS = 6


class _Counted(ABC):
    """A metric of counts of sacrebleu's, `_width` of them."""

    name: str
    higher_is_better = True
    needs_reference = True
    _width: int

    def statistics(self, segments: Sequence[Segment]) -> np.ndarray:
        """Counts, and 1, or all 0 without a reference: (N, K)."""
        counts_NK = np.zeros((len(segments), self._width + 1))
        for place, one in enumerate(segments):
            if one.reference is not None:
                counts_NK[place] = [*self._count(one.translation, one.reference, one.target_language), 1]
        return counts_NK

    def scores(self, statistics_NK: np.ndarray) -> np.ndarray:
        """The score (N,) of each segment, as the library scores sentences."""
        return self._scored(statistics_NK, sentences=True)

    def corpus(self, sums_RK: np.ndarray) -> np.ndarray:
        """The score (R,) of each corpus."""
        return self._scored(sums_RK, sentences=False)

    def _scored(self, sums_RK: np.ndarray, sentences: bool) -> np.ndarray:
        sums_RK = np.asarray(sums_RK, float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(sums_RK[:, -1] > 0, self._score(sums_RK[:, :-1], sentences), np.nan)

    @abstractmethod
    def _count(self, translation: str, reference: str, language: str) -> list[float]:
        """What the library counts in a segment."""

    @abstractmethod
    def _score(self, sums_RK: np.ndarray, sentences: bool) -> np.ndarray:
        """Scores (R,) from sums of counts, without the last column."""


class Bleu(_Counted):
    """BLEU from 0 to 100 (Papineni et al. 2002), with sacrebleu's tokenizers and exponential smoothing. Sentences are
    scored with the effective order: n-grams longer than the translation do not count."""

    _width = 2 + 2 * _ORDERS

    def __init__(self, settings: BleuMetric) -> None:
        self.name, self._settings = settings.name, settings

    def _count(self, translation: str, reference: str, language: str) -> list[float]:
        return _count(self._counter(language), translation, reference)

    def _counter(self, language: str) -> Any:
        chosen = self._settings.tokenizer
        return _bleu(("zh" if language == "zh" else "13a") if chosen == "by-language" else chosen,
                     self._settings.lowercase)  # fmt: skip

    def _score(self, sums_RK: np.ndarray, sentences: bool) -> np.ndarray:
        length_R, reference_R = sums_RK[:, 0], sums_RK[:, 1]
        right_RO, all_RO = np.split(sums_RK[:, 2:], 2, axis=1)
        halvings_RO = np.cumsum(right_RO == 0, axis=1)
        share_RO = np.where(right_RO > 0, right_RO, 0.5**halvings_RO) / all_RO
        log_RO = np.where(all_RO > 0, np.log(share_RO), 0.0 if sentences else -np.inf)
        orders_R = np.maximum((all_RO > 0).sum(1), 1) if sentences else _ORDERS
        brief_R = np.where(length_R < reference_R, np.exp(1 - reference_R / length_R), 1.0)
        return np.where(right_RO.any(1), 100 * brief_R * np.exp(log_RO.sum(1) / orders_R), 0.0)


class Chrf(_Counted):
    """chrF from 0 to 100 (Popović 2015), chrF++ with words: the F-score of characters' n-grams, recall twice as
    weighty; precision and recall are means over the orders that both texts have."""

    def __init__(self, settings: ChrfMetric) -> None:
        self.name, self._settings = settings.name, settings
        self._width = 3 * (_CHARACTER_ORDERS + settings.word_order)

    def _count(self, translation: str, reference: str, language: str) -> list[float]:
        return _count(_chrf(self._settings.word_order, self._settings.lowercase), translation, reference)

    def _score(self, sums_RK: np.ndarray, sentences: bool) -> np.ndarray:
        said_RO, asked_RO, right_RO = (sums_RK[:, first::3] for first in range(3))
        both_RO = (said_RO > 0) & (asked_RO > 0)
        orders_R = np.maximum(both_RO.sum(1), 1)
        precision_R = np.where(both_RO, right_RO / said_RO, 0.0).sum(1) / orders_R
        recall_R = np.where(both_RO, right_RO / asked_RO, 0.0).sum(1) / orders_R
        return np.where(precision_R + recall_R > 0, 500 * precision_R * recall_R / (4 * precision_R + recall_R), 0.0)


class Ter(_Counted):
    """TER (Snover et al. 2006): edits and moves of words per hundred words of the reference. Lower is better."""

    higher_is_better = False
    _width = 2

    def __init__(self, settings: TerMetric) -> None:
        self.name = settings.name

    def _count(self, translation: str, reference: str, language: str) -> list[float]:
        return _count(_ter(), translation, reference)

    def _score(self, sums_RK: np.ndarray, sentences: bool) -> np.ndarray:
        edits_R, words_R = sums_RK.T
        return 100 * np.where(words_R > 0, edits_R / words_R, np.where(edits_R > 0, 1.0, 0.0))


class Meteor(Mean):
    """METEOR from 0 to 1 (Lavie and Agarwal 2007): words matched alike, then by their English stems. A corpus has the
    mean of its segments.

    nltk's stage of synonyms needs WordNet's data, which are not read here on any machine, so that scores agree between
    machines: it finds nothing. Words are those of `NLTKWordTokenizer` on the whole text. nltk's `word_tokenize` cuts
    texts into sentences before, by data that are not at hand either: full stops inside a text stay at their words here.
    """

    def __init__(self, settings: MeteorMetric) -> None:
        self.name = settings.name
        self._weights = {"alpha": settings.alpha, "beta": settings.beta, "gamma": settings.gamma}

    def measure(self, segments: Sequence[Segment]) -> np.ndarray:
        """The score (N,), NaN without a reference."""
        return np.array([self._measure(one.translation, one.reference) for one in segments], float)

    def _measure(self, translation: str, reference: str | None) -> float:
        from nltk.translate.meteor_score import single_meteor_score

        if reference is None:
            return np.nan
        asked, said = (_tokenize_words(text) for text in (reference, translation))
        return float(single_meteor_score(asked, said, stemmer=_stemmer(), wordnet=_NoSynonyms(), **self._weights))


class _NoSynonyms:
    def synsets(self, word: str) -> tuple[Any, ...]:
        return ()


def _count(counter: Any, translation: str, reference: str) -> list[float]:
    """What a metric of sacrebleu counts in a segment, before it makes a score of it."""
    known = _reference(counter, reference)
    return list(counter._compute_segment_statistics(counter._preprocess_segment(translation), known))


@functools.lru_cache(2048)
def _reference(counter: Any, reference: str) -> Any:
    """A reference's counts. Those of one source come again for each system."""
    return counter._extract_reference_info([counter._preprocess_segment(reference)])


@functools.cache
def _bleu(tokenizer: str, lowercase: bool) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenizer, lowercase=lowercase, force=True)


@functools.cache
def _chrf(word_order: int, lowercase: bool) -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF(char_order=_CHARACTER_ORDERS, word_order=word_order, lowercase=lowercase)


@functools.cache
def _ter() -> Any:
    from sacrebleu.metrics import TER

    return TER()


@functools.cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


@functools.lru_cache(2048)
def _tokenize_words(text: str) -> list[str]:
    from nltk.tokenize import NLTKWordTokenizer

    words: list[str] = NLTKWordTokenizer().tokenize(text)
    return words
