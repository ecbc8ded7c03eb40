"""Requests and answers of OpenAI's interface, as far as they are understood here: what is not is refused by name.

Agrees with the `openai` Python client, which reads these answers unmodified.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_TOKENS = 2**20
_MOST_STOPS, _LONGEST_STOP, _MOST_ANSWERS, _MOST_TOP = 16, 256, 16, 20
Stops = Annotated[list[Annotated[str, Field(min_length=1, max_length=_LONGEST_STOP)]], Field(max_length=_MOST_STOPS)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Model = Annotated[str, Field(min_length=1, max_length=512)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TextPart(_Record):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(_Record):
    """What somebody said."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = Field(None, description="taken, and not looked at")

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(_Record):
    """What a stream tells besides the answer."""

    include_usage: bool = False


class JsonSchema(_Record):
    """A form of an answer."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema", default_factory=dict)
    strict: bool | None = None


class ResponseFormat(_Record):
    """What an answer is: text, some JSON object, or JSON of a form."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_form(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema needs a schema")
        return self


class _Sampled(_Record):
    """What chats and completions have in common."""

    model: Model
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=_MOST_ANSWERS)
    seed: Seed | None = None
    stop: str | Stops | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=512, description="taken, and not looked at")
    frequency_penalty: float | None = Field(
        None, ge=-2, le=2, description="taken off a token's logit each time it is said"
    )
    presence_penalty: float | None = Field(
        None, ge=-2, le=2, description="taken off the logit of a token once it is said"
    )
    logit_bias: (
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(None, max_length=1024, description="added to the logits of these tokens, by their numbers")

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @model_validator(mode="after")
    def _one_stream(self) -> Any:
        if self.stream and self.n > 1:
            raise ValueError("n above 1 cannot be streamed")
        if isinstance(self.stop, str) and not 0 < len(self.stop) <= _LONGEST_STOP:
            raise ValueError(f"a stop has 1 to {_LONGEST_STOP} characters")
        return self


class ChatCompletionRequest(_Sampled):
    """A conversation to go on with."""

    messages: list[Message] = Field(min_length=1, max_length=4096)
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=_MOST_TOP)
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _logprobs_agree(self) -> ChatCompletionRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs takes logprobs: true")
        return self


class CompletionRequest(_Sampled):
    """A text to go on with, or several."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=256)]
    max_tokens: int | None = Field(16, ge=1, le=MOST_TOKENS)
    logprobs: int | None = Field(None, ge=0, le=_MOST_TOP)
    echo: Literal[False, None] = Field(None, description="not offered")

    @model_validator(mode="after")
    def _one_prompt_is_streamed(self) -> CompletionRequest:
        if self.stream and isinstance(self.prompt, list) and len(self.prompt) > 1:
            raise ValueError("several prompts cannot be streamed")
        return self


class EmbeddingRequest(_Record):
    """Texts to be turned into vectors."""

    model: Model
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = Field(None, description="not offered: a model has the dimensions that it has")
    user: str | None = Field(None, max_length=512, description="taken, and not looked at")

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class Usage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class TopLogprob(BaseModel):
    """A token that might have been."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    """A token, and those that might have been in its place."""

    top_logprobs: list[TopLogprob] = []


class ChoiceLogprobs(BaseModel):
    """Token by token."""

    content: list[TokenLogprob] | None = None
    refusal: None = None


class AnswerMessage(BaseModel):
    """What the model said."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """Answers to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class CompletionLogprobs(BaseModel):
    """Token by token, in the older form."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One way to go on."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """Ways to go on with texts."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class Embedding(BaseModel):
    """A vector: numbers, or in base64 the bytes of 32-bit floats."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Embeddings(BaseModel):
    """Vectors, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "squadron"


class ModelList(BaseModel):
    """All models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def new_id(kind: str) -> str:
    """A name that no other answer has."""
    return f"{kind}-{uuid.uuid4().hex}"


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
