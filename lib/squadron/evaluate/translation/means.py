"""Metrics of whose scores a corpus has the mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from squadron.evaluate.translation.segments import Segment


class Mean(ABC):
    """A metric by the score of each of N segments. Their statistics are the score and 1, or 0 and 0 without one."""

    name: str
    higher_is_better = True
    needs_reference = True

    @abstractmethod
    def measure(self, segments: Sequence[Segment]) -> np.ndarray:
        """The score (N,) of each segment, NaN where it has none."""

    def statistics(self, segments: Sequence[Segment]) -> np.ndarray:
        """Scores and 1, or 0 and 0 without one: (N, 2)."""
        scores_N = self.measure(segments)
        known_N = np.isfinite(scores_N)
        return np.stack([np.where(known_N, scores_N, 0.0), known_N], axis=1)

    def scores(self, statistics_NK: np.ndarray) -> np.ndarray:
        """The score (N,) of each segment."""
        return self.corpus(statistics_NK)

    def corpus(self, sums_RK: np.ndarray) -> np.ndarray:
        """The mean score (R,) of each corpus."""
        sums_RK = np.asarray(sums_RK, float)
        known_R = sums_RK[:, 1] > 0
        return np.where(known_R, sums_RK[:, 0] / np.where(known_R, sums_RK[:, 1], 1.0), np.nan)
