"""Chat models by vLLM, on GPUs. Needs the `gpu` extra."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from squadron.llm.chat import (
    ChatReply,
    ChatRequest,
    Closing,
    ModelUnavailable,
    Sampling,
    with_system,
)
from squadron.llm.settings import VllmModel
from squadron.train.models.errors import explaining_load_errors
from squadron.train.text.conversations import prompt_text, token_ids
from squadron.train.text.endings import stop_tokens

_WINDOW = 4096
"""Conversations that the engine is given at once. It batches them itself; the next are read when these are done."""


class VllmChat(Closing):
    """vLLM's offline engine: continuous batching, prefix caching, tensor parallelism over `settings.gpus` cards.

    Raises ModelUnavailable where vLLM is not installed or the model cannot be loaded.
    """

    def __init__(self, settings: VllmModel) -> None:
        self._settings, self._vllm = settings, _engine(settings)
        precision = {"bf16": "bfloat16", "fp16": "float16", "auto": "auto"}[settings.precision]
        options: dict[str, Any] = {"max_model_len": settings.max_length, "quantization": settings.quantization}
        fix = "check the path and the memory of the cards; set max_length, gpus or quantization"
        with explaining_load_errors(settings.path, settings.name, ModelUnavailable, fix=fix, also=(RuntimeError,)):
            self._engine: Any = self._vllm.LLM(
                model=settings.path,
                revision=settings.revision,
                dtype=precision,
                tensor_parallel_size=settings.gpus,
                gpu_memory_utilization=settings.gpu_memory,
                enable_prefix_caching=True,
                trust_remote_code=False,
                **{name: value for name, value in options.items() if value is not None},
            )
        self._ends = stop_tokens(self._engine.get_tokenizer())

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        stream = iter(requests)
        while window := list(itertools.islice(stream, _WINDOW)):
            yield from self._answer([(request, self._encode(request)) for request in window])

    def close(self) -> None:
        del self._engine

    def _encode(self, request: ChatRequest) -> list[int]:
        """The prompt's tokens, as `hf` has them: vLLM's own continuation of a turn loses the space that it ends with
        where the chat template trims what was said."""
        tokenizer = self._engine.get_tokenizer()
        messages = [dict(message) for message in with_system(request.messages, self._settings.system)]
        return token_ids(tokenizer, prompt_text(tokenizer, messages))

    def _answer(self, window: list[tuple[ChatRequest, list[int]]]) -> Iterator[ChatReply]:
        """vLLM refuses a whole call for one conversation that is too long: that one is then told apart."""
        try:
            outputs = self._engine.generate(
                [{"prompt_token_ids": ids} for _, ids in window],
                [self._sampling(request.sampling) for request, _ in window],
                use_tqdm=False,
            )
        except ValueError as error:
            if len(window) == 1:
                cause = str(error).strip().partition("\n")[0]
                yield ChatReply(window[0][0].key, finish_reason="error", error=cause)
                return
            half = len(window) // 2
            yield from self._answer(window[:half])
            yield from self._answer(window[half:])
            return
        for (request, ids), output in zip(window, outputs, strict=True):
            answer = output.outputs[0]
            reason = answer.finish_reason
            yield ChatReply(
                request.key,
                answer.text,
                finish_reason=reason if reason in ("stop", "length") else "other",
                prompt_tokens=len(ids),
                completion_tokens=len(answer.token_ids),
            )

    def _sampling(self, sampling: Sampling) -> Any:
        """vLLM's settings of one answer. It knows the ends of the model's generation configuration; here are the
        template's."""
        return self._vllm.SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            stop=list(sampling.stop) or None,
            stop_token_ids=self._ends,
        )


def _engine(settings: VllmModel) -> Any:
    """vLLM, or what plays it in a rehearsal where it is not installed. Raises ModelUnavailable."""
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        if settings.rehearsed is not None:
            return importlib.import_module("squadron.llm.stand_in.vllm_engine")
        fix = "pip install 'squadron[gpu]' -c constraints/gpu.txt, or set the provider to hf"
        raise ModelUnavailable(f"{settings.name} needs vLLM: {error}", where="provider: vllm", fix=fix) from error
