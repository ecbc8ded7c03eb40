"""A chat model that is asked how good an answer is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from squadron.core.blanks import fill_in
from squadron.llm.chat import ChatModel, ChatRequest, Closing, user
from squadron.llm.parsing import Unreadable, read_number
from squadron.llm.rewards.reward import Answered, Score
from squadron.llm.rewards.settings import JudgeReward

UNREADABLE = "unreadable verdict"
"""How the error of a row begins whose verdict came, and does not say what was asked for."""


class Judge(Closing):
    """Asks a chat model about every row. A verdict that cannot be read is an error, never a low score."""

    def __init__(self, settings: JudgeReward, model: ChatModel) -> None:
        self._settings, self._model = settings, model

    def score(self, rows: Sequence[Answered]) -> Iterator[Score]:
        asked: dict[str, Answered] = {}
        for number, row in enumerate(rows):
            if row.reference is None and "{reference}" in self._settings.rubric:
                yield Score(row.key, None, "the rubric holds {reference}, but there is no reference answer")
            else:
                asked[str(number)] = row
        requests = (
            ChatRequest(number, user(self._question(row)), self._settings.sampling) for number, row in asked.items()
        )
        for reply in self._model.chat(requests):
            key = asked[reply.key].key
            if not reply.ok:
                yield Score(key, None, f"the judge failed: {reply.error}", reply.cost_usd)
            elif reply.finish_reason == "length":
                error = f"the verdict is cut off after {reply.completion_tokens:,} tokens; raise sampling.max_tokens"
                yield Score(key, None, error, reply.cost_usd)
            else:
                try:
                    value = read_number(reply.text, self._settings.low, self._settings.high)
                    yield Score(key, value, cost_usd=reply.cost_usd)
                except Unreadable as error:
                    what = f"{UNREADABLE}: {error.what}, in {error.where}"
                    yield Score(key, None, what, reply.cost_usd)

    def close(self) -> None:
        self._model.close()

    def _question(self, row: Answered) -> str:
        return fill_in(
            self._settings.rubric,
            instruction=row.instruction,
            response=row.response,
            reference=row.reference or "",
            low=f"{self._settings.low:g}",
            high=f"{self._settings.high:g}",
        )
