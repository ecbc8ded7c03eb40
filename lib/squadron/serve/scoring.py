"""Scores behind `POST /v1/score`: of responses, of the steps of solutions, of texts by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.profile import WorkerResources
from squadron.serve import costs
from squadron.serve.service import Route, Service

_UNITS = 2048
Kind = Literal["response", "steps", "text"]
_EXAMPLES: dict[Kind, dict[str, Any]] = {
    "response": {"instruction": "What is 6 times 7?", "response": "42"},
    "steps": {"instruction": "What is 6 times 7 plus 1?", "steps": ["6 times 7 is 42.", "42 plus 1 is 43."]},
    "text": {"text": "What a fine day."},
}


class ScoredRow(Config):
    """An instruction with a response to it, an instruction with the steps of a solution, or a text."""

    instruction: str | None = Field(None, min_length=1)
    response: str | None = None
    steps: tuple[str, ...] | None = Field(None, min_length=1, max_length=1024)
    text: str | None = Field(None, min_length=1)

    @property
    def kind(self) -> Kind:
        """What is scored."""
        return "text" if self.text is not None else "steps" if self.steps is not None else "response"

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> ScoredRow:
        given = tuple(name for name in ("instruction", "response", "steps", "text") if getattr(self, name) is not None)
        if given not in (("instruction", "response"), ("instruction", "steps"), ("text",)):
            raise ValueError("a row has instruction and response, or instruction and steps, or text")
        return self


class ScoreRequest(Config):
    """Rows to be scored."""

    model: str = Field(min_length=1, max_length=512)
    rows: tuple[ScoredRow, ...] = Field(min_length=1, max_length=1024)


class RowScore(Config):
    """A score, or why there is none.

    Of a response: the reward. Of steps: the probability that all are right, their product (Lightman et al. 2023), and
    that of each. Of a text: the probability of its likeliest class, which that is, and those of all.
    """

    index: int
    score: float | None
    error: str = ""
    steps: tuple[float, ...] | None = None
    label: str | None = None
    probabilities: dict[str, float] | None = None


class ScoreAnswer(Config):
    """Scores in the order of the rows; more is better."""

    object: Literal["list"] = "list"
    model: str
    data: tuple[RowScore, ...]


class Scorer(Protocol):
    """Scores rows of the kind that it takes."""

    takes: Kind

    def score(self, rows: Sequence[ScoredRow]) -> Iterator[RowScore]:
        """Every row's score once, in any order. What goes wrong with one row is told in its score."""


def score_service(
    name: str, takes: Kind, load: Callable[[], Scorer], resources: WorkerResources | None = None
) -> Service:
    """A service of what `load` loads, which clients call `name`."""
    example = {"rows": [_EXAMPLES[takes]]}
    route = Route(
        "/v1/score", "score", ScoreRequest, ScoreAnswer, "Score responses, steps or texts", example=example,
        work=lambda request: len(request.rows) + _tokens(request) * 4 // costs.PASS, tokens=_tokens,
    )  # fmt: skip
    return Service(
        name, partial(ScoreServer, name, load), (route,), resources or WorkerResources(), capacity=_UNITS,
        unit=f"rows, each {costs.PASS:,} characters counted as one more", models=(name,),
    )  # fmt: skip


def _tokens(request: ScoreRequest) -> int:
    """About how many tokens rows have."""
    return sum(
        costs.tokens_of([row.instruction or "", row.response or "", row.text or "", *(row.steps or ())])
        for row in request.rows
    )


class ScoreServer:
    """One scorer."""

    def __init__(self, name: str, load: Callable[[], Scorer]) -> None:
        self._name, self._scorer = name, load()

    def score(self, request: ScoreRequest) -> ScoreAnswer:
        """A score for each row, or why it has none. Raises InputError for rows of another kind."""
        takes = self._scorer.takes
        for number, row in enumerate(request.rows):
            if row.kind != takes:
                wanted = " and ".join(_EXAMPLES[takes])
                raise InputError(f"rows.{number}: {self._name} scores rows that have {wanted}", where=f"rows.{number}")
        scores = sorted(self._scorer.score(request.rows), key=lambda one: one.index)
        return ScoreAnswer(model=request.model, data=tuple(scores))
