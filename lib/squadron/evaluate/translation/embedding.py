"""A small metric of the house: n-grams in common, matched token vectors of the packaged encoder, and lengths.

Each of F faults of a translation is from 0, none, to 1, and weighs what it weighed with experts: the weights were
learned on translations of WMT23 from English to German with experts' MQM scores, on a half of the documents, which
`learns_from` tells. The difference of two translations' scores of a source is the logarithm of the odds that experts
prefer the first, and a translation like its reference has 0.

On the other half, of 97 documents and 219 sources with a tau-b, its tau-b per source is .264 and chrF's .250: the
difference, .014, has a 95% interval by bootstrap over documents from -.007 to .034. Where each half is scored by
weights of the other, tau-b over all is .265 and chrF's .241: the difference, .023, has .010 to .036. The faults and
the ridge were chosen on the first half, after a first look at single features on all documents. In other languages and
kinds of text it was not measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from squadron.evaluate.translation.lexical import Chrf
from squadron.evaluate.translation.means import Mean
from squadron.evaluate.translation.segments import Segment
from squadron.evaluate.translation.settings import ChrfMetric, EmbeddingMetric
from squadron.evaluate.translation.tokens import TokenMatcher, match_each_way

_WORD_ORDERS, _AT_A_TIME = 2, 256
RIDGE = 300.0
"""Of the learning, chosen by cross-validation on the half that is learned from."""
FAULTS = (
    *(f"{kind} {order} {side}" for side in ("precision", "recall")
      for kind, orders in (("characters", 6), ("words", _WORD_ORDERS)) for order in range(1, orders + 1)),
    "tokens precision", "tokens recall", "mean token", "longer", "shorter",
)  # fmt: skip
"""What each fault is of."""
WEIGHTS = (
    -0.3567, -0.5757, 0.0733, 0.3478, 0.1788, -0.047, 1.6687, 1.3617,
    0.487, 0.2472, 0.5819, 0.5078, 0.2101, -0.0864, -0.2981, 0.2933,
    -1.4174, 0.2422, 1.5517, 2.3246, 0.5275,
)  # fmt: skip
"""By `learn_weights` from the half that `learns_from` tells: what each fault adds when the others are the same."""


class EmbeddingScore(Mean):
    """Minus the weighted faults of a translation. The encoder is loaded when it is first needed."""

    def __init__(self, settings: EmbeddingMetric) -> None:
        self.name, self._settings = settings.name, settings
        self._matcher: TokenMatcher | None = None

    def measure(self, segments: Sequence[Segment]) -> np.ndarray:
        """The score (N,), 0 at best, NaN without a reference."""
        values_N = np.full(len(segments), np.nan)
        known = [place for place, one in enumerate(segments) if one.reference is not None]
        if known:
            values_N[known] = -self.faults([segments[place] for place in known]) @ np.array(WEIGHTS)
        return values_N

    def faults(self, segments: Sequence[Segment]) -> np.ndarray:
        """The faults (N, F) of segments that have references."""
        self._matcher = self._matcher or TokenMatcher(batch_size=self._settings.batch_size)
        parts = [
            np.concatenate([_ngram_faults(some), _token_faults(some, self._matcher), _length_faults(some)], axis=1)
            for start in range(0, len(segments), _AT_A_TIME)
            if (some := segments[start : start + _AT_A_TIME])
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(FAULTS)))


def learns_from(document: str) -> bool:
    """Whether a document is of the half that weights are learned from; the other half measures."""
    return hashlib.sha256(document.encode()).digest()[-1] % 2 == 0


def learn_weights(faults_SNF: np.ndarray, human_SN: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """Weights (F,) of faults by logistic regression on pairs of translations of a source, of S systems and N sources:
    which of the two has the higher score from people. Faults are scaled to the same spread, ties and pairs without a
    score left out."""
    first, second = np.triu_indices(len(human_SN), 1)
    gap_PN = human_SN[first] - human_SN[second]
    used_PN = np.isfinite(gap_PN) & (gap_PN != 0)
    rises_P = np.where(gap_PN[used_PN] > 0, 1.0, -1.0)
    fewer_PF = (faults_SNF[second] - faults_SNF[first])[used_PN]
    spread_F = fewer_PF.std(0) + 1e-12
    towards_PF = fewer_PF / spread_F * rises_P[:, None]
    weights_F = np.zeros(towards_PF.shape[1])
    for _ in range(50):  # Newton's steps; a convex problem
        wrong_P = 1 / (1 + np.exp(towards_PF @ weights_F))
        slope_F = towards_PF.T @ wrong_P - ridge * weights_F
        curve_FF = (towards_PF * (wrong_P * (1 - wrong_P))[:, None]).T @ towards_PF + ridge * np.eye(len(weights_F))
        step_F = np.linalg.solve(curve_FF, slope_F)
        weights_F += step_F
        if np.abs(step_F).max() < 1e-10:
            break
    learned_F: np.ndarray = weights_F / spread_F
    return learned_F


def _ngram_faults(segments: Sequence[Segment]) -> np.ndarray:
    """What precision and recall of chrF++'s n-grams lack. An order that the reference lacks has no fault."""
    counts = Chrf(ChrfMetric(word_order=_WORD_ORDERS)).statistics(segments)[:, :-1]
    said, asked, right = (counts[:, first::3] for first in range(3))
    shares = [np.where(asked > 0, right / np.maximum(one, 1), 1.0) for one in (said, asked)]
    return 1 - np.concatenate(shares, axis=1)


def _token_faults(segments: Sequence[Segment], matcher: TokenMatcher) -> np.ndarray:
    """What BERTScore's precision and recall, and the cosine of the mean token vectors, lack."""
    texts = list(dict.fromkeys(text for one in segments for text in (one.translation, one.reference or "")))
    vectors = dict(zip(texts, matcher.vectors(texts), strict=True))
    found = []
    for one in segments:
        first, second = vectors[one.translation], vectors[one.reference or ""]
        if len(first) or len(second):
            found.append([*match_each_way(first, second), _cosine(first, second)])
        else:
            found.append([1.0, 1.0, 1.0])
    return 1 - np.clip(np.array(found), 0.0, 1.0)


def _cosine(first_TD: np.ndarray, second_UD: np.ndarray) -> float:
    if not len(first_TD) or not len(second_UD):
        return 0.0
    one, other = first_TD.mean(0), second_UD.mean(0)
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))


def _length_faults(segments: Sequence[Segment]) -> np.ndarray:
    """How much longer, and how much shorter than its reference a translation is, as a share of the longer text."""
    lengths = np.array([(len(one.translation), len(one.reference or "")) for one in segments], float)
    gap = (lengths[:, 0] - lengths[:, 1]) / np.maximum(lengths.max(1), 1)
    return np.stack([np.maximum(gap, 0), np.maximum(-gap, 0)], axis=1)
