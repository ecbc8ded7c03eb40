"""Which queries need their conversation: by rules on words, or by a classifier that is told what the rules say.

The kinds of ambiguity are those of arXiv 2502.00537. Rules see that a word points elsewhere (syntactic), and that a
query names too little (pragmatic); a name with several bearers (lexical) only a model could.
"""

from __future__ import annotations

from collections.abc import Sequence

from squadron.methods.rewrite.records import Turn
from squadron.methods.rewrite.referring import points_elsewhere
from squadron.methods.rewrite.terms import bears_meaning, lay_out, split
from squadron.train.heads import HeadedPredictor

STANDS, NEEDS = KINDS = ("stands", "needs")


def ambiguity_row(turn: Turn) -> dict[str, object]:
    """What the classifier reads: the history's words, and the query behind what rules say of it."""
    laid = lay_out(turn)
    return {"words": laid.words[: laid.query], "second": f"{kind_by_rule(turn)}: {turn.query}"}


def kind_by_rule(turn: Turn) -> str:
    """`points`, `bare` for a query of one word with a meaning or less, or `whole`."""
    if points_elsewhere(turn):
        return "points"
    return "bare" if sum(map(bears_meaning, split(turn.query))) <= 1 else "whole"


class AmbiguityClassifier:
    """Says of turns whether their query needs its conversation: from this probability on. A query without history has
    none to need."""

    def __init__(self, model: HeadedPredictor, threshold: float) -> None:
        self._model, self.threshold = model, threshold

    def probabilities(self, turns: Sequence[Turn]) -> list[float]:
        """How likely each query needs its conversation."""
        found = self._model.predict([ambiguity_row(turn) for turn in turns])
        return [said.labels[NEEDS] if turn.history else 0.0 for said, turn in zip(found, turns, strict=True)]

    def need(self, turns: Sequence[Turn]) -> list[bool]:
        """Whether each does."""
        return [likely >= self.threshold for likely in self.probabilities(turns)]

    def __call__(self, turn: Turn) -> bool:
        return self.need([turn])[0]
