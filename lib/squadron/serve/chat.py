"""A chat model behind OpenAI's interface: chats, completions and embeddings, many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from squadron.core.errors import InputError
from squadron.core.profile import WorkerResources
from squadron.core.work import current, in_thread, take_turns
from squadron.llm.chat import Sampling
from squadron.llm.decoding.continuous import Piece
from squadron.llm.settings import HfModel
from squadron.serve import costs
from squadron.serve import openai as api
from squadron.serve import openai_requests as asked
from squadron.serve.embedding import embeddings
from squadron.serve.logprobs import chat_logprobs, completion_logprobs
from squadron.serve.prompts import Prompts
from squadron.serve.service import Context, Event, Route, Service, SharedBase
from squadron.serve.tool_calls import Toolbox, tool_calls

if TYPE_CHECKING:
    from squadron.llm.decoding.continuous import Generation
    from squadron.llm.decoding.grammar import Grammar
    from squadron.serve.spec import ServeSpec
    from squadron.train.text.calls import Call, CallReader

_LINES = 4
"""Answers that may be at work for each that the engine writes at a time: the others wait there."""
_ROUTES = (
    Route(
        "/v1/chat/completions", "chat", asked.ChatCompletionRequest, api.ChatCompletion, "Go on with a conversation",
        stream="stream_chat", work=lambda request: request.n, tokens=costs.chat_tokens,
    ),
    Route(
        "/v1/completions", "complete", asked.CompletionRequest, api.Completion, "Go on with a text",
        stream="stream_complete", example={"prompt": "What is 6 times 7?", "max_tokens": 32, "temperature": 0},
        work=costs.completion_answers, tokens=costs.completion_tokens,
    ),
    Route(
        "/v1/embeddings", "embed", asked.EmbeddingRequest, api.Embeddings, "Turn texts into vectors",
        example={"input": ["a text", "another"]}, work=costs.embedding_passes, tokens=costs.embedding_tokens,
    ),
)  # fmt: skip


def chat_service(
    name: str, path: str, resources: WorkerResources | None = None, max_rows: int = 64, adapter: str = ""
) -> Service:
    """A service of the model at `path`, a folder or a hub name, which clients call `name`; with the LoRA adapter in the
    folder `adapter`, if one is given. Those over the same model share its replicas."""
    base = os.path.abspath(path) if os.path.isdir(path) else path
    return _over(resources or WorkerResources(), max_rows, base, {name: adapter})


def _over(resources: WorkerResources, max_rows: int, base: str, adapters: Mapping[str, str]) -> Service:
    """The service of a base, and of models that are adapters over it."""
    name, adapter = next(iter(adapters.items()))
    return Service(
        name,
        partial(ChatServer, HfModel(name=name, path=base), max_rows, dict(adapters)),
        _ROUTES,
        resources,
        max_parallel=max_rows,
        capacity=_LINES * max_rows,
        unit=f"answers, each {costs.PASS:,} characters to embed counted as one",
        models=tuple(adapters),
        over=SharedBase(base, adapter, partial(_over, resources, max_rows)),
        by_vllm=partial(_by_vllm, name, base, dict(adapters)),
    )


def _by_vllm(name: str, base: str, adapters: Mapping[str, str], spec: ServeSpec, on_gpus: bool) -> Any:
    from squadron.serve.vllm import deployment

    return deployment(name, base, adapters, spec, on_gpus)


class ChatServer:
    """One model, whose answers share a batch, also those of different adapters over it: `adapters` has by the name of a
    model the folder of its adapter, "" for the model as it is.

    Raises ModelUnavailable if one of them cannot be loaded, ConfigError if the model's cache cannot be batched so.
    """

    def __init__(self, settings: HfModel, max_rows: int, adapters: Mapping[str, str] | None = None) -> None:
        from squadron.llm.backends.hf import load_model
        from squadron.llm.decoding.adapters import attach
        from squadron.llm.decoding.continuous import Engine, check_rows
        from squadron.llm.decoding.grammar import Grammars

        loaded = load_model(settings)
        check_rows(loaded.model, settings.path)
        self._name, self._tokenizer, self._context = settings.name, loaded.tokenizer, loaded.context
        self._model, self._adapters = attach(loaded.model, adapters or {})
        self._prompts = Prompts(settings.name, loaded.tokenizer, loaded.context, self._model.config.vocab_size)
        self._grammars = Grammars(self._tokenizer, loaded.ends)
        self._grammars.json(None, "response_format")  # now, and not while the first request for JSON waits
        self._tools = Toolbox(self._tokenizer, self._grammars, loaded.ends)
        self._engine = Engine(self._model, loaded.tokenizer, loaded.ends, loaded.context, max_rows)

    async def chat(self, request: asked.ChatCompletionRequest) -> api.ChatCompletion:
        """Answers to a conversation. Raises InputError if it does not fit, or asks for what there is not."""
        ready = await in_thread(self._prepare, request, alone=False)
        answers = [
            asyncio.create_task(self._collect(self._chat_generation(request, ready, number), ready.reader()))
            for number in range(request.n)
        ]
        choices, written = [], 0
        for number, (pieces, tokens) in enumerate(await _all(answers)):
            logprobs = chat_logprobs(self._tokenizer, pieces) if request.logprobs else None
            text, calls = "".join(piece.text for piece in pieces), tool_calls(pieces[-1].calls)
            message = api.AnswerMessage(content=text if text.strip() or not calls else None, tool_calls=calls or None)
            reason: Any = "tool_calls" if calls else pieces[-1].finish_reason
            choices.append(api.ChatChoice(index=number, message=message, logprobs=logprobs, finish_reason=reason))
            written += tokens
        return api.ChatCompletion(
            id=api.new_id("chatcmpl"), created=api.now(), model=request.model, choices=choices,
            usage=api.usage(len(ready.prompt), written),
        )  # fmt: skip

    async def stream_chat(self, request: asked.ChatCompletionRequest, context: Context) -> AsyncIterator[list[Event]]:
        """The answer piece by piece, in the form of OpenAI's chunks. Calls come at its end, each as a whole."""
        ready = await in_thread(self._prepare, request, alone=False)
        generation = self._chat_generation(request, ready, 0, context.seed, streams=True)
        first = context.skip == 0

        def choices(piece: Told) -> list[dict[str, Any]]:
            nonlocal first
            delta: dict[str, Any] = {"role": "assistant"} if first else {}
            first = False
            if piece.text or not piece.finish_reason:
                delta["content"] = piece.text
            logprobs = chat_logprobs(self._tokenizer, [piece]).model_dump() if request.logprobs else None
            told = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": piece.finish_reason}
            if not piece.calls:
                return [told]
            calls = [{"index": n, **call.model_dump()} for n, call in enumerate(tool_calls(piece.calls))]
            last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}
            return [told | {"delta": delta | {"tool_calls": calls}, "finish_reason": None}, last]

        chunks = self._chunks(request, generation, context, "chat.completion.chunk", choices, ready.reader())
        async for events in chunks:
            yield events

    async def complete(self, request: asked.CompletionRequest) -> api.Completion:
        """Ways to go on with texts. Raises InputError if one does not fit."""
        prompts = await in_thread(self._encode, request.prompts, "prompt", alone=False)
        answers = [
            asyncio.create_task(self._collect(self._completion_generation(request, prompt, number)))
            for prompt in prompts
            for number in range(request.n)
        ]
        choices, written = [], 0
        for number, (pieces, tokens) in enumerate(await _all(answers)):
            logprobs = completion_logprobs(self._tokenizer, pieces) if request.logprobs is not None else None
            text, reason = "".join(piece.text for piece in pieces), pieces[-1].finish_reason
            if request.echo:
                text = self._said(request.prompts[number // request.n]) + text
            choice: Any = {"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}
            choices.append(api.CompletionChoice(**choice))
            written += tokens
        return api.Completion(
            id=api.new_id("cmpl"), created=api.now(), model=request.model, choices=choices,
            usage=api.usage(sum(map(len, prompts)), written),
        )  # fmt: skip

    async def stream_complete(self, request: asked.CompletionRequest, context: Context) -> AsyncIterator[list[Event]]:
        """One way to go on with a text, piece by piece."""
        (prompt,) = await in_thread(self._encode, request.prompts, "prompt", alone=False)
        generation = self._completion_generation(request, prompt, 0, context.seed, streams=True)

        def choices(piece: Told) -> list[dict[str, Any]]:
            logprobs = (
                completion_logprobs(self._tokenizer, [piece]).model_dump() if request.logprobs is not None else None
            )
            return [{"index": 0, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish_reason}]

        async for events in self._chunks(request, generation, context, "text_completion", choices):
            yield events

    async def embed(self, request: asked.EmbeddingRequest) -> api.Embeddings:
        """The mean of each text's last hidden states, of length 1. Raises InputError for a text that is empty or does
        not fit."""
        from squadron.llm.backends.mean_states import mean_states

        encoded = await in_thread(self._encode, request.inputs, "input", alone=False)
        vectors = await in_thread(mean_states, self._model, encoded, self._adapters.get(request.model))
        return embeddings(request, vectors, request.model, sum(map(len, encoded)))

    def close(self) -> None:
        """End what is being answered."""
        self._engine.close()

    def _encode(self, texts: Sequence[str | Sequence[int]], where: str) -> list[list[int]]:
        encoded = []
        for text in texts:
            take_turns()
            encoded.append(self._prompts.encode(text, where))
        return encoded

    def _prepare(self, request: asked.ChatCompletionRequest) -> _Ready:
        text = self._prompts.text(request)
        grammar = None
        if request.response_format.type != "text":
            form = request.response_format.json_schema
            grammar = self._grammars.json(form.schema_ if form is not None else None, "response_format")
        elif request.offered:
            grammar = self._tools.grammar(request)
        return _Ready(self._prompts.encode(text, "messages"), grammar, partial(self._tools.reader, request, text))

    def _said(self, prompt: str | Sequence[int]) -> str:
        return prompt if isinstance(prompt, str) else str(self._tokenizer.decode(prompt))

    def _chat_generation(
        self, request: asked.ChatCompletionRequest, ready: _Ready, number: int, seed: int | None = None,
        streams: bool = False,
    ) -> Generation:  # fmt: skip
        most = request.max_completion_tokens or request.max_tokens
        told = (request.top_logprobs or 0) if request.logprobs else None
        grammar = ready.grammar.copy() if ready.grammar is not None else None
        generation = self._generation(request, ready.prompt, most, told, number, seed, streams, grammar)
        generation.keeps_special = bool(request.offered)
        return generation

    def _completion_generation(
        self, request: asked.CompletionRequest, prompt: Sequence[int], number: int, seed: int | None = None,
        streams: bool = False,
    ) -> Generation:  # fmt: skip
        return self._generation(request, prompt, request.max_tokens, request.logprobs, number, seed, streams, None)

    def _generation(
        self, request: Any, prompt: Sequence[int], most: int | None, logprobs: int | None, number: int,
        seed: int | None, streams: bool, grammar: Any,
    ) -> Generation:  # fmt: skip
        from squadron.llm.decoding.continuous import Generation

        seed = request.seed + number if request.seed is not None else seed
        sampling = Sampling(
            max_tokens=most or self._context, temperature=request.temperature, top_p=request.top_p,
            seed=None if seed is None else seed % 2**63, stop=request.stops,
        )  # fmt: skip
        return Generation(
            tuple(prompt), sampling, lambda piece: None, streams, logprobs, grammar, self._bias(request.logit_bias),
            request.frequency_penalty or 0.0, request.presence_penalty or 0.0, self._adapters.get(request.model),
            client=current().client,
        )  # fmt: skip

    def _bias(self, asked: Mapping[str, float] | None) -> dict[int, float]:
        bias = {int(token): value for token, value in (asked or {}).items()}
        if unknown := [token for token in bias if token >= self._model.config.vocab_size]:
            raise InputError(f"logit_bias: {self._name} has no token {unknown[0]}")
        return bias

    async def _chunks(
        self, request: Any, generation: Generation, context: Context, kind: str,
        choices: Callable[[Told], list[dict[str, Any]]], reader: CallReader | None = None,
    ) -> AsyncIterator[list[Event]]:  # fmt: skip
        """Pieces of an answer as OpenAI's chunks of this kind, with what `choices` makes of each."""
        chunk = {"id": context.id, "object": kind, "created": context.created, "model": request.model}
        read = len(generation.prompt)
        with_usage = request.stream_options is not None and request.stream_options.include_usage
        async with contextlib.aclosing(self._stream(generation, context.skip, reader)) as some:
            async for pieces in some:
                events = []
                for piece in pieces:
                    written = piece.completion_tokens
                    for number, choice in enumerate(choices(piece)):
                        data = json.dumps({**chunk, "choices": [choice]})
                        events.append(Event(0 if number else len(piece.text), data, read, written))
                    if piece.finish_reason and with_usage:
                        data = json.dumps({**chunk, "choices": [], "usage": api.usage(read, written).model_dump()})
                        events.append(Event(0, data, read, written))
                yield events

    async def _collect(self, generation: Generation, reader: CallReader | None = None) -> tuple[list[Told], int]:
        pieces = [piece async for some in self._stream(generation, 0, reader) for piece in some]
        return pieces, pieces[-1].completion_tokens

    async def _stream(
        self, generation: Generation, skip: int, reader: CallReader | None = None
    ) -> AsyncGenerator[list[Told], None]:
        """Pieces as they come, those that have come together in one; the first `skip` characters are left out.

        Whoever stops listening ends the answer. Raises InputError if it cannot be given.
        """
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def emit(piece: Piece) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, piece)

        generation.emit = emit
        self._engine.submit(generation)
        try:
            while True:
                pieces = [await arrived.get()]
                while not arrived.empty():
                    pieces.append(arrived.get_nowait())
                told = []
                for piece in pieces:
                    if piece.finish_reason == "error":
                        raise piece.refused or RuntimeError(piece.error)
                    one, skip = _without(_told(piece, reader), skip)
                    told.append(one)
                if kept := [piece for piece in told if piece.text or piece.finish_reason]:
                    yield kept
                if pieces[-1].finish_reason:
                    return
        finally:
            generation.cancelled = True


@dataclass(frozen=True)
class _Ready:
    """What a conversation is answered from: its tokens, what the answer keeps to, and what reads calls from it."""

    prompt: list[int]
    grammar: Grammar | None
    reader: Callable[[], CallReader | None]


@dataclass(frozen=True)
class Told(Piece):
    """A piece, as it is told: the last one with the calls of tools."""

    calls: list[Call] = field(default_factory=list)


def _told(piece: Piece, reader: CallReader | None) -> Told:
    text = piece.text if reader is None else reader.feed(piece.text)
    calls: list[Call] = []
    if reader is not None and piece.finish_reason:
        rest, calls = reader.finish()
        text += rest
    return Told(text, piece.logprobs, piece.finish_reason, piece.completion_tokens, calls=calls)


def _without(piece: Told, skip: int) -> tuple[Told, int]:
    if skip == 0:
        return piece, 0
    cut = min(skip, len(piece.text))
    return replace(piece, text=piece.text[cut:], logprobs=()), skip - cut


async def _all(tasks: Sequence[asyncio.Task[Any]]) -> list[Any]:
    """What all of them give; the others end if one fails, or nobody waits any more."""
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
