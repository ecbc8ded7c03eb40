"""Metrics of translations, by one interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from squadron.evaluate.translation import embedding, lexical, tokens
from squadron.evaluate.translation.segments import Segment
from squadron.evaluate.translation.settings import (
    AnyMetric,
    BertScoreMetric,
    BleuMetric,
    ChrfMetric,
    CometMetric,
    EmbeddingMetric,
    MeteorMetric,
    TerMetric,
)


class Metric(Protocol):
    """Scores translations. N segments have K statistics each, from which corpora are scored without reading texts
    again.

    Of a metric that is a mean over segments, the statistics are a segment's score and 1, or 0 and 0 where it has none.
    """

    name: str
    higher_is_better: bool
    needs_reference: bool

    def statistics(self, segments: Sequence[Segment]) -> np.ndarray:
        """What a corpus is scored from: (N, K)."""
        ...

    def scores(self, statistics_NK: np.ndarray) -> np.ndarray:
        """The score (N,) of each segment by itself; NaN where it has none."""
        ...

    def corpus(self, sums_RK: np.ndarray) -> np.ndarray:
        """The score (R,) of each of R corpora, by the sums of their segments' statistics."""
        ...


def open_metric(settings: AnyMetric) -> Metric:
    """The metric of these settings. Its models are loaded now or when they are first needed. Raises InputError for one
    that cannot be read."""
    match settings:
        case BleuMetric():
            return lexical.Bleu(settings)
        case ChrfMetric():
            return lexical.Chrf(settings)
        case TerMetric():
            return lexical.Ter(settings)
        case MeteorMetric():
            return lexical.Meteor(settings)
        case BertScoreMetric():
            return tokens.BertScore(settings)
        case EmbeddingMetric():
            return embedding.EmbeddingScore(settings)
        case CometMetric():
            from squadron.evaluate.translation.comet.metric import CometScorer  # which imports torch

            return CometScorer(settings)
