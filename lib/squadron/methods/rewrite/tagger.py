"""The history-term tagger as a rewriter: an encoder tags words of history and query, and its tags are carried out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from squadron.methods.rewrite.records import Turn
from squadron.methods.rewrite.terms import Thresholds, compose, lay_out
from squadron.train.heads import HeadedPredictor


class Tagger:
    """Rewrites turns by a trained tagger. A query without history stays as it is."""

    def __init__(self, model: HeadedPredictor, thresholds: Thresholds) -> None:
        self._model, self._thresholds = model, thresholds

    def rewrite(self, turns: Sequence[Turn]) -> list[str]:
        """A rewrite for each, in their order."""
        return [carry_out(turn, tags, self._thresholds) for turn, tags in zip(turns, self.tags(turns), strict=True)]

    def tags(self, turns: Sequence[Turn]) -> list[np.ndarray]:
        """The probabilities (words, tags) of each turn as it is laid out."""
        rows = [{"words": lay_out(turn).words, "second": turn.query} for turn in turns]
        return [said.tags for said in self._model.predict(rows)]


def carry_out(turn: Turn, probabilities: np.ndarray, thresholds: Thresholds) -> str:
    """The rewrite of a turn by the probabilities of its words' tags."""
    return compose(lay_out(turn), probabilities, thresholds, turn.query) if turn.history else turn.query
