"""Which reward models there are: of outcomes or of steps, a judge, a checker, or a column that holds the score."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from squadron.core.blanks import check_blanks
from squadron.core.config import Config, operational
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import AtMost, Model
from squadron.llm.chat import Sampling
from squadron.llm.settings import AnyModel

RUBRIC = """\
You judge how well a response follows an instruction: whether it is right, complete, clear, and no longer than it needs
to be. Say in a few sentences what speaks for and against it. Then end with a line of its own, "Score: " and a number
between {low} (useless) and {high} (nothing to be mended).

### Instruction
{instruction}

### Response
{response}"""
_ASKED = ("instruction", "response")


class LocalReward(Config):
    """What every reward model by transformers has, of the hub or of a local folder."""

    path: InputPath
    revision: str | None = None
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    batch_size: int = operational(16, ge=1, description="conversations scored together")
    gpus: Annotated[int, AtMost(1)] = operational(1, ge=1, description="cards that share the weights, layer by layer")
    max_length: int | None = Field(None, ge=2, description="tokens; a longer row is an error; None: the model's own")


class ClassifierReward(LocalReward):
    """A sequence classifier with one output, as reward models are published, by transformers."""

    provider: Literal["classifier"] = "classifier"
    path: Annotated[InputPath, Model("sequence")]


class CrossEncoderReward(LocalReward):
    """A sequence classifier with one output that reads two texts as a pair, by transformers: rerankers of
    sentence-transformers and of the BGE, Jina and mxbai families. The score is that output, before any sigmoid."""

    provider: Literal["cross_encoder"] = "cross_encoder"
    path: Annotated[InputPath, Model("sequence")]
    max_length: int | None = Field(
        None, ge=4, description="tokens of a pair; the longer text is cut first; None: the model's own"
    )


class LabelTokenReward(LocalReward):
    """A causal language model that says whether a response's last step is right, in one token behind it.

    Process reward models trained on PRM800K (Lightman et al. 2023) are of this kind. The score is the share of
    `positive` in the probability of the two labels, between 0 and 1. Without `negative` it is the logit of `positive`.

    The label comes next behind `template` filled in. With None, it comes next in a conversation: the instruction is the
    user's turn, the response begins the assistant's, as the tokenizer's chat template writes them; a tokenizer without
    one reads the instruction, a new line, the response, and a space.
    """

    provider: Literal["label_token"] = "label_token"
    path: Annotated[InputPath, Model("causal", labels=("positive", "negative"))]
    template: str | None = Field(
        None, description="holds {instruction} and {response}; None: the tokenizer's chat template, where it has one"
    )
    positive: str = Field("+", min_length=1, description="the label of a right step: one token")
    negative: str | None = Field("-", min_length=1, description="the label of a wrong step: one token; None: no label")
    cut: bool = Field(False, description="cut a response at its end where the row is too long, which is else an error")

    @field_validator("template")
    @classmethod
    def _holds_the_answer(cls, value: str | None) -> str | None:
        return value if value is None else check_blanks(value, _ASKED)

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
        return check_blanks(value, _ASKED, ("reference", "low", "high"))

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
    ClassifierReward | CrossEncoderReward | LabelTokenReward | JudgeReward | ColumnReward | VerifierReward,
    Field(discriminator="provider"),
]
