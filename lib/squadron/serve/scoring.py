"""A reward model behind `POST /v1/score`."""

from __future__ import annotations

import threading
from functools import partial
from typing import Literal

from pydantic import Field

from squadron.core.config import Config
from squadron.core.profile import WorkerResources
from squadron.llm.providers import open_model
from squadron.llm.reward import Answered, AnyReward, open_reward
from squadron.serve.service import Route, Service


class ScoredRow(Config):
    """An instruction and a response to it."""

    instruction: str = Field(min_length=1)
    response: str


class ScoreRequest(Config):
    """Responses to be scored."""

    model: str = Field(min_length=1, max_length=512)
    rows: tuple[ScoredRow, ...] = Field(min_length=1, max_length=1024)


class RowScore(Config):
    """A score, or why there is none."""

    index: int
    score: float | None
    error: str = ""


class ScoreAnswer(Config):
    """Scores in the order of the rows; more is better."""

    object: Literal["list"] = "list"
    model: str
    data: tuple[RowScore, ...]


def score_service(name: str, reward: AnyReward, resources: WorkerResources | None = None) -> Service:
    """A service of a reward model, which clients call `name`."""
    example = {"rows": [{"instruction": "What is 6 times 7?", "response": "42"}]}
    route = Route("/v1/score", "score", ScoreRequest, ScoreAnswer, "Score responses", example=example)
    return Service(name, partial(RewardServer, name, reward), (route,), resources or WorkerResources(), models=(name,))


class RewardServer:
    """One reward model. Raises ModelUnavailable if it cannot be loaded."""

    def __init__(self, name: str, reward: AnyReward) -> None:
        self._name, self._model, self._lock = name, open_reward(reward, open_model), threading.Lock()

    def score(self, request: ScoreRequest) -> ScoreAnswer:
        """A score for each row, or why it has none."""
        rows = [Answered(str(number), row.instruction, row.response) for number, row in enumerate(request.rows)]
        with self._lock:
            scores = {int(one.key): one for one in self._model.score(rows)}
        data = (RowScore(index=number, score=one.value, error=one.error) for number, one in sorted(scores.items()))
        return ScoreAnswer(model=self._name, data=tuple(data))
