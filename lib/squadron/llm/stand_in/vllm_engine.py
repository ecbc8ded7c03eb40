"""vLLM's offline engine, played by transformers on the CPU: the same names and arguments, for rehearsals where vLLM is
not installed. Arguments that vLLM 0.33 does not have are refused, as Python does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from squadron.llm.chat import Sampling, cut_at_stop
from squadron.llm.decoding.decoder import Answer
from squadron.llm.decoding.sampling import Sampler

_DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")


@dataclass(frozen=True)
class SamplingParams:
    """Of one answer. Refuses what vLLM refuses."""

    max_tokens: int | None = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}.")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"temperature {self.temperature} or top_p {self.top_p} is out of range.")


@dataclass(frozen=True)
class CompletionOutput:
    """One answer."""

    text: str
    token_ids: list[int]
    finish_reason: str | None


@dataclass(frozen=True)
class RequestOutput:
    """What became of a prompt."""

    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)


class LLM:
    """A model of a local folder or the hub."""

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        quantization: str | None = None,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        enable_prefix_caching: bool = True,
        trust_remote_code: bool = False,
        max_model_len: int | None = None,
    ) -> None:
        from squadron.llm.backends.hf import load_model
        from squadron.llm.settings import HfModel

        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype}.")
        self._loaded = load_model(HfModel.model_validate({"name": "engine", "path": model, "revision": revision}))
        self._context = min(self._loaded.context, max_model_len or self._loaded.context)

    def get_tokenizer(self) -> Any:
        return self._loaded.tokenizer

    def generate(
        self, prompts: Sequence[dict[str, list[int]]], sampling_params: Sequence[SamplingParams], use_tqdm: bool = True
    ) -> list[RequestOutput]:
        """Raises ValueError if a prompt is longer than the model's context, before any is answered."""
        for prompt in prompts:
            if len(prompt["prompt_token_ids"]) >= self._context:
                what = f"The decoder prompt (length {len(prompt['prompt_token_ids'])}) is longer than the maximum"
                raise ValueError(f"{what} model length of {self._context}.")
        return [self._one(*pair) for pair in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt: dict[str, list[int]], params: SamplingParams) -> RequestOutput:
        from squadron.llm.decoding.generation import generate, stops_in

        ids, stops = prompt["prompt_token_ids"], params.stop or []
        tokenizer, room = self._loaded.tokenizer, self._context - len(ids)
        sampling = Sampling(temperature=params.temperature, top_p=params.top_p, seed=params.seed)
        ends = self._loaded.ends | set(params.stop_token_ids or ())
        most = min(params.max_tokens or room, room)
        answer = Answer(tuple(ids), Sampler(sampling), most, ends, stops_in(tokenizer, tuple(stops)))
        generate(self._loaded.model, [answer])
        text, stopped = cut_at_stop(tokenizer.decode(answer.tokens, skip_special_tokens=True), stops)
        reason = "stop" if stopped else answer.finish_reason
        return RequestOutput(ids, [CompletionOutput(text, list(answer.tokens), reason)])
