"""Which rerankers there are: models that read a query and a document together, and chat models that are asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from squadron.core.blanks import check_blanks
from squadron.core.config import Config
from squadron.llm.chat import Sampling
from squadron.llm.rewards.settings import CrossEncoderReward, JudgeReward, LabelTokenReward
from squadron.llm.settings import AnyModel

YES_OR_NO = """\
A: {instruction}
B: {response}
Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a \
prediction of either 'Yes' or 'No'."""
"""What bge-reranker-gemma was trained to read (its model card)."""

RELEVANCE = """\
You judge how relevant a document is to a query: whether it answers the query, or is what the query asks for.

### Query
{instruction}

### Document
{response}

End with a line of its own, "Score: " and a number between {low} (not relevant) and {high} (exactly what is asked \
for)."""

ORDER = """\
Below are {count} documents, each behind a number in brackets. Rank them by their relevance to the query: {query}

{documents}

Query: {query}
Write the numbers of all {count} documents, the most relevant first, in the form [2] > [1] > [3], and nothing else."""
_WORDS = "of a document, which is cut behind them; None: all"


class LabelTokenReranker(LabelTokenReward):
    """A causal language model that says "Yes" behind a relevant document; as it stands, bge-reranker-gemma, whose score
    is the logit of that token. Qwen3-Reranker has a template of its own, `positive: yes` and `negative: no`."""

    template: str | None = Field(YES_OR_NO, description="holds {instruction}, the query, and {response}, the document")
    positive: str = Field("Yes", min_length=1, description="the label of a relevant document: one token")
    negative: str | None = Field(None, min_length=1, description="the other label; None: the logit of `positive`")
    max_length: int | None = Field(1024, ge=2, description="tokens of a pair; a longer document is cut")
    cut: bool = True


class JudgeReranker(JudgeReward):
    """A chat model that grades one document at a time. Documents of one grade keep their order."""

    rubric: str = Field(RELEVANCE, description="holds {instruction}, the query, and {response}, the document")
    low: float = Field(0.0, allow_inf_nan=False)
    max_words: int | None = Field(300, ge=1, description=_WORDS)


class ListwiseReranker(Config):
    """A chat model that orders a window of documents at a time, from the end of the ranking to its beginning (RankGPT,
    Sun et al. 2023). One pass brings the best `window - step` to the top; each further pass as many more."""

    provider: Literal["listwise"] = "listwise"
    model: AnyModel
    prompt: str = Field(ORDER, description="holds {query} and {documents}; may hold {count}")
    window: int = Field(20, ge=2, description="documents in one question")
    step: int = Field(10, ge=1, description="places by which the window moves")
    passes: int = Field(1, ge=1)
    max_words: int | None = Field(300, ge=1, description=_WORDS)
    sampling: Sampling = Sampling(max_tokens=1024)

    @field_validator("prompt")
    @classmethod
    def _shows_what_is_ranked(cls, value: str) -> str:
        return check_blanks(value, ("query", "documents"), ("count",))

    @model_validator(mode="after")
    def _windows_overlap(self) -> ListwiseReranker:
        if self.step >= self.window:
            raise ValueError(f"step ({self.step}) must be below window ({self.window}), or none would move up further")
        return self


AnyReranker = Annotated[
    CrossEncoderReward | LabelTokenReranker | JudgeReranker | ListwiseReranker, Field(discriminator="provider")
]
