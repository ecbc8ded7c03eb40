"""Chat models by transformers, in this process."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from squadron.llm.backends.batches import in_batches
from squadron.llm.chat import ChatReply, ChatRequest, Closing, ModelUnavailable, Sampling, cut_at_stop, with_system
from squadron.llm.decoding.decoder import Answer
from squadron.llm.decoding.generation import generate, stops_in
from squadron.llm.decoding.sampling import Sampler
from squadron.llm.settings import HfModel
from squadron.train.text.conversations import prompt_text, token_ids
from squadron.train.text.endings import stop_tokens

if TYPE_CHECKING:
    import torch

_WINDOW_BATCHES = 16
"""Batches whose conversations are read ahead, to be generated in order of length."""


@dataclass(frozen=True)
class Loaded:
    """A model on its device with its tokenizer, the tokens that end an answer, and how many tokens it holds."""

    model: Any
    tokenizer: Any
    ends: set[int]
    context: int


def load_model(settings: HfModel) -> Loaded:
    """A model of the hub or of a local folder. Loads safetensors only, and runs no code that comes with a model.

    Raises ModelUnavailable if there is no such model.
    """
    from squadron.train.library_setup import quiet_libraries
    from squadron.train.models.attention import keep_cap
    from squadron.train.models.builders import local_folder
    from squadron.train.models.errors import explaining_load_errors

    quiet_libraries()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = local_folder(settings.path)
    options: dict[str, Any] = {"revision": settings.revision, "trust_remote_code": False}
    with explaining_load_errors(settings.path, settings.name, ModelUnavailable):
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=_dtype(settings, device), use_safetensors=True, **options
        )
    model = keep_cap(model).to(device).eval()
    context = int(getattr(model.config, "max_position_embeddings", 0) or 2**20)
    ends = set(stop_tokens(tokenizer, model.generation_config.eos_token_id))
    return Loaded(model, tokenizer, ends, context)


class HfChat(Closing):
    """Batched generation with a model of the hub or of a local folder.

    Greedy and sampled answers do not depend on which other conversations share a batch: each draws from a generator of
    its own, seeded by its request. Raises ModelUnavailable if there is no such model, or it has no chat template.
    """

    def __init__(self, settings: HfModel) -> None:
        from squadron.train.models.errors import check_chat_template

        loaded = load_model(settings)
        check_chat_template(loaded.tokenizer, settings.path, settings.name, ModelUnavailable)
        self._settings, self._model, self._tokenizer = settings, loaded.model, loaded.tokenizer
        self._context, self._ends = loaded.context, loaded.ends

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        stream = iter(requests)
        while window := list(itertools.islice(stream, _WINDOW_BATCHES * self._settings.batch_size)):
            encoded = [(request, self._encode(request)) for request in window]
            for request, ids in encoded:
                if len(ids) >= self._context:
                    error = f"the conversation has {len(ids):,} tokens, {self._settings.name} holds {self._context:,}"
                    yield ChatReply(request.key, finish_reason="error", prompt_tokens=len(ids), error=error)
            fitting = [(request, ids) for request, ids in encoded if len(ids) < self._context]
            # Answers of one length share a batch; equal conversations come together, to be read once.
            fitting.sort(key=lambda pair: (repr(_common(pair[0].sampling)), len(pair[1]), pair[1]))
            for _, alike in itertools.groupby(fitting, key=lambda pair: _common(pair[0].sampling)):
                for (request, ids), reply, error in in_batches(alike, self._answer, self._settings.batch_size):
                    what = f"a conversation of {len(ids):,} tokens: {error}"
                    yield reply or ChatReply(request.key, finish_reason="error", prompt_tokens=len(ids), error=what)

    def close(self) -> None:
        import gc

        import torch

        del self._model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _encode(self, request: ChatRequest) -> list[int]:
        messages = [dict(message) for message in with_system(request.messages, self._settings.system)]
        return token_ids(self._tokenizer, prompt_text(self._tokenizer, messages))

    def _answer(self, batch: Sequence[tuple[ChatRequest, list[int]]]) -> list[ChatReply]:
        import time

        started = time.perf_counter()
        stopped = stops_in(self._tokenizer, batch[0][0].sampling.stop)
        answers = [
            Answer(
                tuple(ids),
                Sampler(request.sampling),
                min(request.sampling.max_tokens, self._context - len(ids)),
                self._ends,
                stopped,
            )
            for request, ids in batch
        ]
        generate(self._model, answers)
        seconds = (time.perf_counter() - started) / len(batch)
        return [self._reply(request, answer, seconds) for (request, _), answer in zip(batch, answers, strict=True)]

    def _reply(self, request: ChatRequest, answer: Answer, seconds: float) -> ChatReply:
        text, stopped = cut_at_stop(
            self._tokenizer.decode(answer.tokens, skip_special_tokens=True), request.sampling.stop
        )
        reason = "stop" if stopped and not answer.error else answer.finish_reason or "other"
        return ChatReply(
            request.key,
            "" if answer.error else text,
            finish_reason=reason,
            prompt_tokens=len(answer.prompt),
            completion_tokens=len(answer.tokens),
            seconds=seconds,
            error=answer.error,
        )


def _common(sampling: Sampling) -> tuple[Any, ...]:
    return sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.stop


def _dtype(settings: HfModel, device: torch.device) -> Any:
    import torch

    named: dict[str, Any] = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return named.get(settings.precision, "auto" if device.type == "cuda" else torch.float32)
