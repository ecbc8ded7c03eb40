"""How good an answer is: by a reward model of outcomes or of steps, a judge, a checker, or a column that says so.

model = open_reward(settings, open_model)
for score in model.score([Answered("1", "What is 6 times 7?", "42")]):
    print(score.error or score.value)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field, field_validator, model_validator

from squadron.core.config import Config, operational
from squadron.core.errors import InputError
from squadron.core.inputs import InputPath
from squadron.llm.chat import ChatModel, ChatRequest, Closing, Sampling, user
from squadron.llm.parsing import Unreadable, read_number
from squadron.llm.settings import AnyModel

RUBRIC = """\
You judge how well a response follows an instruction: whether it is right, complete, clear, and no longer than it needs
to be. Say in a few sentences what speaks for and against it. Then end with a line of its own, "Score: " and a number
between {low} (useless) and {high} (nothing to be mended).

### Instruction
{instruction}

### Response
{response}"""
_BLANK = re.compile(r"\{(\w+)\}")


class LocalReward(Config):
    """What every reward model by transformers has, of the hub or of a local folder."""

    path: InputPath
    revision: str | None = None
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    batch_size: int = operational(16, ge=1, description="conversations scored together")
    max_length: int | None = Field(None, ge=2, description="tokens; a longer row is an error; None: the model's own")


class ClassifierReward(LocalReward):
    """A sequence classifier with one output, as reward models are published, by transformers."""

    provider: Literal["classifier"] = "classifier"


class LabelTokenReward(LocalReward):
    """A causal language model that says whether a response's last step is right, in one token behind it.

    Process reward models trained on PRM800K (Lightman et al. 2023) are of this kind. The score is the share of
    `positive` in the probability of the two labels, between 0 and 1.

    The label comes next behind `template` filled in. With None, it comes next in a conversation: the instruction is the
    user's turn, the response begins the assistant's, as the tokenizer's chat template writes them; a tokenizer without
    one reads the instruction, a new line, the response, and a space.
    """

    provider: Literal["label_token"] = "label_token"
    template: str | None = Field(
        None, description="holds {instruction} and {response}; None: the tokenizer's chat template, where it has one"
    )
    positive: str = Field("+", min_length=1, description="the label of a right step: one token")
    negative: str = Field("-", min_length=1, description="the label of a wrong step: one token")

    @field_validator("template")
    @classmethod
    def _holds_the_answer(cls, value: str | None) -> str | None:
        return value if value is None else _about_the_answer(value)

    @model_validator(mode="after")
    def _labels_differ(self) -> LabelTokenReward:
        if self.positive == self.negative:
            raise ValueError(f"positive and negative are both {self.positive!r}")
        return self


class JudgeReward(Config):
    """A chat model that is asked for a number."""

    provider: Literal["judge"] = "judge"
    model: AnyModel
    rubric: str = Field(RUBRIC, description="holds {instruction}, {response}; may hold {reference}, {low}, {high}")
    low: float = Field(1.0, allow_inf_nan=False)
    high: float = Field(10.0, allow_inf_nan=False)
    sampling: Sampling = Sampling(max_tokens=1024)

    @field_validator("rubric")
    @classmethod
    def _asks_about_the_answer(cls, value: str) -> str:
        return _about_the_answer(value)

    @model_validator(mode="after")
    def _scale_has_a_length(self) -> JudgeReward:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class ColumnReward(Config):
    """The score that came with the answer."""

    provider: Literal["column"] = "column"


class VerifierReward(Config):
    """A comparison with the reference answer, between 0 and 1."""

    provider: Literal["verifier"] = "verifier"
    checker: Literal["tasks", "final_answer"] = Field("tasks", description="final_answer: the number behind ####")


AnyReward = Annotated[
    ClassifierReward | LabelTokenReward | JudgeReward | ColumnReward | VerifierReward, Field(discriminator="provider")
]


@dataclass(frozen=True, slots=True)
class Answered:
    """An instruction and a response to it. `key` names it to whoever asked; `score` is one that came with it."""

    key: str
    instruction: str
    response: str
    reference: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """What became of a row: a finite value, or in `error` why there is none. `cost_usd` was paid either way."""

    key: str
    value: float | None
    error: str = ""
    cost_usd: float = 0.0


class RewardModel(Protocol):
    """What scores answers; higher is better."""

    def score(self, rows: Sequence[Answered]) -> Iterator[Score]:
        """Score every row once, in the order of completion. What goes wrong with one row is told in its score."""

    def close(self) -> None:
        """Let go of connections and memory."""


def open_reward(settings: AnyReward, open_model: Callable[[AnyModel], ChatModel]) -> RewardModel:
    """The reward model of these settings, loaded; `open_model` opens a judge's chat model.

    Raises ModelUnavailable or ConfigError if it cannot be used.
    """
    match settings:
        case ClassifierReward():
            from squadron.llm.rewards.local import open_classifier

            return open_classifier(settings)
        case LabelTokenReward():
            from squadron.llm.rewards.local import open_label_token

            return open_label_token(settings)
        case JudgeReward():
            return _Judge(settings, open_model(settings.model))
        case ColumnReward():
            return _RowByRow(_from_column)
        case VerifierReward(checker="tasks"):
            return _RowByRow(_by_tasks)
        case VerifierReward():
            return _RowByRow(_by_final_answer)


def scored(key: str, value: float) -> Score:
    """The score of a row's value, an error where it is no finite number."""
    return Score(key, value) if math.isfinite(value) else Score(key, None, f"the score is {value}, no finite number")


def fill_in(text: str, **blanks: str) -> str:
    """The text with `{name}` replaced where `blanks` has the name; other braces are left as they are.

    All in one go, so that a response which holds "{reference}" is left as it is.
    """
    return _BLANK.sub(lambda blank: blanks.get(blank[1], blank[0]), text)


def _about_the_answer(text: str) -> str:
    if missing := {"instruction", "response"} - set(_BLANK.findall(text)):
        raise ValueError(f"needs {' and '.join(f'{{{name}}}' for name in sorted(missing))}")
    return text


class _RowByRow(Closing):
    """What computes one row's value without another's, and raises InputError where it cannot."""

    def __init__(self, value: Callable[[Answered], float]) -> None:
        self._value = value

    def score(self, rows: Sequence[Answered]) -> Iterator[Score]:
        for row in rows:
            try:
                yield scored(row.key, self._value(row))
            except InputError as error:
                yield Score(row.key, None, error.what)


def _from_column(row: Answered) -> float:
    if row.score is None:
        raise InputError("the input has no score for this answer")
    return row.score


def _by_tasks(row: Answered) -> float:
    from squadron.data.tasks import grade

    return float(grade(row.response, _reference(row)))


def _by_final_answer(row: Answered) -> float:
    from squadron.data.arithmetic import MARKER, final_answer, is_correct

    reference = _reference(row)
    if final_answer(reference) is None:
        raise InputError(f"the reference answer has no number behind {MARKER}")
    return float(is_correct(row.response, reference))


def _reference(row: Answered) -> str:
    if row.reference is None:
        raise InputError("there is no reference answer to compare with")
    return row.reference


class _Judge(Closing):
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
                    what = f"unreadable verdict: {error.what}, in {error.where}"
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
