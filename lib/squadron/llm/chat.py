"""Chat models: one protocol for every way of reaching one.

    with open_model(settings) as model:
        for reply in model.chat([ChatRequest("1", user("What is 6 times 7?"))]):
            print(reply.text if reply.ok else reply.error)

Providers: `hf` (transformers, in this process), `vllm` (on GPUs), `openai` (any OpenAI-compatible address) and
`scripted` (rules, or the replay of a recorded file).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol

from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import ConfigError, ResourceError
from squadron.core.masking import remember_secret

Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""


class Sampling(Config):
    """How an answer is drawn. Equal settings and an equal seed ask for an equal answer; a provider may not keep it."""

    max_tokens: int = Field(512, ge=1)
    temperature: float = Field(0.0, ge=0, description="0: greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=0)
    stop: tuple[str, ...] = Field((), description="texts that end an answer; not part of it")


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One conversation to go on with. `key` names it to whoever asked.

    One that ends with words of the assistant asks for the rest of that turn: the reply holds what comes after them.
    """

    key: str
    messages: tuple[Message, ...]
    sampling: Sampling = GREEDY


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What became of a request: an answer, or in `error` why there is none. `cost_usd` is what was paid either way.

    `reasoning_tokens` are those of `completion_tokens` that went into thinking. `note` says what was asked for that the
    model does not take.
    """

    key: str
    text: str = ""
    finish_reason: Literal["stop", "length", "other", "error"] = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    attempts: int = 1
    error: str = ""
    note: str = ""

    @property
    def ok(self) -> bool:
        return not self.error


class ChatModel(Protocol):
    """A model that answers conversations."""

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """Answer every request once, in the order of completion; `requests` is read as answers are given out.

        What goes wrong with one request is told in its reply. Raises ModelUnavailable if none can be answered: no such
        model, a wrong key, an address where nobody listens; SpendCapReached if the next one may cost too much.
        """

    def close(self) -> None:
        """Let go of connections and memory."""

    def __enter__(self) -> ChatModel: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ModelUnavailable(ResourceError):
    """A model cannot be reached or loaded at all."""


def user(text: str, system: str | None = None) -> tuple[Message, ...]:
    """A conversation of one question."""
    asked: Message = {"role": "user", "content": text}
    return (asked,) if system is None else ({"role": "system", "content": system}, asked)


def continues_assistant(messages: tuple[Message, ...]) -> bool:
    """Whether a conversation ends within the assistant's turn, so that the reply is the rest of it."""
    return bool(messages) and messages[-1]["role"] == "assistant"


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop in it, and whether there was one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def with_system(messages: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    """The conversation under a model's system message, unless it brings one of its own."""
    if system is None or (messages and messages[0]["role"] == "system"):
        return messages
    return ({"role": "system", "content": system}, *messages)


def secret(variable: str | None) -> str | None:
    """The value of an environment variable that holds a key, which texts of this process show no more. Raises
    ConfigError naming the variable if it is unset."""
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        fix = f"export {variable}=… before starting; on a cluster, give it to the job's runtime environment"
        raise ConfigError(f"the environment variable {variable} is not set", where="api_key_env", fix=fix)
    remember_secret(value)
    return value


class Closing:
    """What makes a provider a context manager."""

    def close(self) -> None:
        """Nothing to let go of, unless a provider says otherwise."""

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
