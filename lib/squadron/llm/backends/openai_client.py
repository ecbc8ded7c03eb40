"""Models behind an OpenAI-compatible address: chat completions and embeddings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from squadron.core.errors import ConfigError, ResourceError
from squadron.core.json_text import from_json
from squadron.core.masking import remember_secrets
from squadron.llm.backends.parameters import Parameters
from squadron.llm.backends.rate_limits import Limits
from squadron.llm.backends.transport import Answer, Call, Endpoint, Outcome
from squadron.llm.batch.budget import Budget
from squadron.llm.chat import ChatReply, ChatRequest, Closing, Sampling, continues_assistant, cut_at_stop, with_system
from squadron.llm.settings import OpenAiModel
from squadron.train.text.tokenizer import load_tokenizer

BYTES_PER_TOKEN = 4
"""About so many, in English. Only for what a server does not count."""

_MOST_TOKENS = 10**9

WRAPPING_TOKENS = 16
"""What a chat template puts around a message, at most."""


class OpenAiChat(Closing):
    """A chat model behind an OpenAI-compatible address.

    Conversations are sent again after failures that may pass: time-outs, broken connections, cut-off answers and the
    states 408, 409, 429 and from 500 on. One that has been answered is never sent again. Several `chat` at a time share
    the limits of the settings.
    """

    def __init__(self, settings: OpenAiModel, budget: Budget | None = None) -> None:
        self._settings = settings
        free = settings.prompt_usd_per_million == settings.completion_usd_per_million == 0
        self._budget = None if free else budget
        self._endpoint = Endpoint(
            f"{settings.base_url}/chat/completions",
            api_key_env=settings.api_key_env,
            max_concurrency=settings.max_concurrency,
            timeout_s=settings.timeout_s,
            max_attempts=settings.max_attempts,
            limits=Limits(settings.requests_per_minute, settings.tokens_per_minute),
        )
        extra = dict(settings.extra_body)
        remember_secrets(extra)  # a server may repeat what it was sent
        if settings.reasoning_effort is not None:
            extra["reasoning_effort"] = settings.reasoning_effort
        self._parameters = Parameters(settings.drop_params, extra=extra)
        self._tokenizer = None if settings.tokenizer is None else load_tokenizer(settings.tokenizer, settings.name)

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """See ChatModel. `seconds` of a reply is what its last attempt took; closing the iterator cancels the rest."""
        with closing(self._endpoint.run(map(self._call, requests), self._budget)) as outcomes:
            for outcome in outcomes:
                yield _reply(outcome)

    def close(self) -> None:
        """Cancel what is under way and close all connections."""
        self._endpoint.close()

    def _call(self, request: ChatRequest) -> Call:
        messages = [dict(message) for message in with_system(request.messages, self._settings.system)]
        sampling, rest = request.sampling, continues_assistant(request.messages)
        size = sum(_size(str(message["content"])) for message in messages)
        about = math.ceil(size / BYTES_PER_TOKEN)
        body: dict[str, Any] = {"model": self._settings.model}
        url, trimmed = "", ""
        if rest and not self._settings.can_continue:
            fix = "set continuation to how its server continues a turn, or ask another model"
            raise ConfigError(f"{self._settings.name} cannot continue a turn", where=self._settings.base_url, fix=fix)
        if rest and self._tokenizer is not None:
            from squadron.train.text.conversations import prompt_text, token_ids

            url = f"{self._settings.base_url}/completions"
            # Tokens, since servers put the beginning of a text before a prompt that has it already.
            body["prompt"] = token_ids(self._tokenizer, prompt_text(self._tokenizer, messages))
        elif rest:
            messages, fields, trimmed = continue_turn(messages, self._settings.continues_by)
            body |= {"messages": messages, **fields}
        else:
            body["messages"] = messages
        # A stop that the model itself has to write first is looked for here.
        told = tuple(stop for stop in sampling.stop if stop.strip()) if trimmed else sampling.stop
        body |= self._parameters.of(sampling.model_copy(update={"stop": told}))
        # No token is shorter than a byte.
        worst_usd = self._cost(size + WRAPPING_TOKENS * len(messages), sampling.max_tokens)
        return Call(
            request.key,
            json.dumps(body).encode(),
            partial(self._read, about, worst_usd, sampling, trimmed),
            tokens=about + sampling.max_tokens,
            worst_usd=worst_usd,
            amend=self._amend,
            url=url,
        )

    def _amend(self, body: bytes, error: Any) -> bytes | None:
        """A body that the server refused, without what it says that the model does not take."""
        asked = json.loads(body)
        known = self._parameters.amend(asked)  # another request may have learned it in the meantime
        if known == asked and self._parameters.learn(asked, error):
            known = self._parameters.amend(asked)
        return None if known == asked else json.dumps(known).encode()

    def _read(self, about: int, worst_usd: float, sampling: Sampling, trimmed: str, body: bytes) -> Answer:
        """The reply that an answer of the server holds. `about`: the prompt's tokens where the server does not count
        them. What cannot be read may have been paid for: as much as the server counts, else `worst_usd`."""
        payload = _object(body)
        usage, choice = _mapping(payload.get("usage")), _choice(payload)
        prompt, completion, thought = _tokens(usage, about, choice.text if choice else None)
        if choice is None:
            choice = _Choice(None, "error", {})
            failure = f"status 200, but not the JSON of an answer: {self._endpoint.quoted(body)!r}"
            cost_usd = self._cost(prompt, completion) if _count(usage, "completion_tokens") is not None else worst_usd
        else:
            failure, cost_usd = _why_none(choice, completion, thought), self._cost(prompt, completion)
        said = choice.text or ""
        shown, stopped = cut_at_stop(said.lstrip(trimmed) if trimmed else said, sampling.stop)
        reply = ChatReply(
            "",
            shown,
            finish_reason="error" if failure else "stop" if stopped else _reason(choice.reason),
            prompt_tokens=prompt,
            completion_tokens=completion,
            reasoning_tokens=thought,
            cost_usd=cost_usd,
            error=failure,
            note=self._parameters.left_out(sampling),
        )
        return Answer(reply, prompt + completion, cost_usd)

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        settings = self._settings
        prompt = prompt_tokens * settings.prompt_usd_per_million
        return (prompt + completion_tokens * settings.completion_usd_per_million) / 1e6


class OpenAiEmbeddings(Closing):
    """An embedding model behind an OpenAI-compatible address; failures are dealt with as in OpenAiChat."""

    def __init__(
        self,
        model: str,
        base_url: str,
        api_key_env: str | None = None,
        *,
        batch_size: int = 128,
        max_concurrency: int = 8,
        timeout_s: float = 120.0,
        max_attempts: int = 8,
    ) -> None:
        self._model, self._batch_size = model, batch_size
        self._endpoint = Endpoint(
            f"{base_url.rstrip('/')}/embeddings",
            api_key_env=api_key_env,
            max_concurrency=max_concurrency,
            timeout_s=timeout_s,
            max_attempts=max_attempts,
        )

    def embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One row per text, in their order. Raises ResourceError if the server refuses a batch of them."""
        starts = range(0, len(texts), self._batch_size)
        parts: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
        with closing(self._endpoint.run(self._call(start, texts) for start in starts)) as outcomes:
            for outcome in outcomes:
                if outcome.answer is None:
                    what = f"the texts from number {outcome.call.key} on have no embedding: {outcome.error}"
                    raise ResourceError(what, where=self._endpoint.url)
                parts[outcome.call.key] = outcome.answer.value
        return np.concatenate([parts[str(start)] for start in starts]) if parts else np.empty((0, 0), np.float32)

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """The server alone knows its tokens."""
        return [False] * len(texts)

    def close(self) -> None:
        """Cancel what is under way and close all connections."""
        self._endpoint.close()

    def _call(self, start: int, texts: Sequence[str]) -> Call:
        batch = list(texts[start : start + self._batch_size])
        body = json.dumps({"model": self._model, "input": batch, "encoding_format": "float"}).encode()
        return Call(str(start), body, partial(_rows, len(batch)))


class _Choice(NamedTuple):
    """The first choice of an answer: its text, None if it has none, why it ended, and the whole message."""

    text: str | None
    reason: Any
    message: Mapping[str, Any]


def _reply(outcome: Outcome) -> ChatReply:
    made = ChatReply("", finish_reason="error", error=outcome.error)
    if outcome.answer is not None:
        made = outcome.answer.value
    return replace(
        made,
        key=outcome.call.key,
        seconds=outcome.seconds,
        attempts=outcome.attempts,
        cost_usd=outcome.cost_usd,
    )


def continue_turn(messages: list[dict[str, Any]], how: str) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """A conversation whose last turn is to be continued, the fields that ask for it, and the space that its end lost.

    The space goes because chat templates such as Llama's and Gemma's trim it: so it is the same for all, and what the
    model writes first.
    """
    said = str(messages[-1]["content"])
    last: dict[str, Any] = messages[-1] | {"content": said.rstrip()}
    fields: dict[str, Any] = {}
    if how == "prefix":
        last["prefix"] = True
    elif how == "continue_final_message":
        fields = {"add_generation_prompt": False, "continue_final_message": True}
    return [*messages[:-1], last], fields, said[len(said.rstrip()) :]


def _rows(count: int, body: bytes) -> Answer:
    try:
        rows = sorted(from_json(body)["data"], key=lambda row: int(row["index"]))
        vectors = np.array([row["embedding"] for row in rows], np.float32)
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"status 200, but not the JSON of embeddings: {error!r}"[:200]) from None
    if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
        raise ValueError("status 200, but not one vector of finite numbers for every text")
    return Answer(vectors)


def _object(body: bytes) -> Mapping[str, Any]:
    """The object that a body holds; an empty one where it holds none."""
    try:
        return _mapping(from_json(body))
    except ValueError:
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _choice(payload: Mapping[str, Any]) -> _Choice | None:
    """The first choice of an answer; None if it is none, or of another shape than the API's."""
    choices = payload.get("choices")
    first = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = _mapping(first.get("message") or {"content": first.get("text")})
    text = message.get("content")
    if isinstance(text, list):  # some servers answer in parts, such as thoughts and text
        parts = [_mapping(part) for part in text]
        text = "".join(str(part.get("text")) for part in parts if part.get("type") == "text")
    if not ({"message", "text"} & first.keys() and isinstance(text, str | None)):
        return None
    return _Choice(text, first.get("finish_reason"), message)


def _why_none(choice: _Choice, completion: int, thought: int) -> str:
    """Why a choice holds no answer; empty if it holds one."""
    if choice.reason == "length" and not (choice.text or "").strip():
        thinking = thought or choice.message.get("reasoning_content") or choice.message.get("reasoning")
        spent = "went into reasoning" if thinking else "are spent"
        return f"all {completion:,} tokens {spent} and there is no answer yet; raise max_tokens"
    if choice.text is None:
        said = str(choice.message.get("refusal") or "no reason given")
        return f"the answer holds no text (finish_reason {choice.reason}): {said}"
    return ""


def _tokens(usage: Mapping[str, Any], about: int, text: str | None) -> tuple[int, int, int]:
    """Tokens of the prompt, of the completion, and those of it that went into reasoning, estimated where the server
    does not count them, or counts what cannot be."""
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    prompt = about if prompt is None else prompt
    completion = math.ceil(_size(text or "") / BYTES_PER_TOKEN) if completion is None else completion
    thought = _count(_mapping(usage.get("completion_tokens_details")), "reasoning_tokens") or 0
    if completion < thought:
        completion += thought  # some servers count it apart
    return prompt, max(completion, (_count(usage, "total_tokens") or 0) - prompt), thought


def _reason(reason: Any) -> Literal["stop", "length", "other"]:
    return reason if reason in ("stop", "length") else "other"


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    """A number of tokens; None where the server does not say it, or says what is none."""
    count = usage.get(name)
    if isinstance(count, bool) or not isinstance(count, int | float) or not 0 <= count < _MOST_TOKENS:
        return None
    return int(count)


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
