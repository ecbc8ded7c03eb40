"""Chat models by transformers, in this process. B conversations of a batch, T tokens, V tokens of the vocabulary."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from squadron.llm.chat import ChatReply, ChatRequest, Closing, ModelUnavailable, Sampling, with_system
from squadron.llm.settings import HfModel

if TYPE_CHECKING:
    import torch

_WINDOW_BATCHES = 16
"""Batches whose conversations are read ahead, to be generated in order of length."""


class HfChat(Closing):
    """Batched generation with a model of the hub or of a local folder. Loads safetensors only, and runs no code that
    comes with a model.

    Greedy and sampled answers do not depend on which other conversations share a batch: each draws from a generator of
    its own, seeded by its request. Raises ModelUnavailable if there is no such model, or it has no chat template.
    """

    def __init__(self, settings: HfModel) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from squadron.train.models import local_folder
        from squadron.train.quiet import quiet_libraries

        quiet_libraries()
        self._settings = settings
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        path = local_folder(settings.path)
        options: dict[str, Any] = {"revision": settings.revision, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", **options)
            model: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=_dtype(settings, self._device), use_safetensors=True, **options
            )
        except (OSError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            fix = "give a hub name (organisation/model) or a folder with config.json and safetensors files"
            raise ModelUnavailable(
                f"{settings.name} cannot be loaded: {first}", where=settings.path, fix=fix
            ) from error
        if self._tokenizer.chat_template is None:
            fix = "use the instruction-tuned model, or add a chat template to its tokenizer"
            raise ModelUnavailable(f"{settings.name} has no chat template", where=settings.path, fix=fix)
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = model.to(self._device).eval()
        self._context = int(getattr(model.config, "max_position_embeddings", 0) or 2**20)
        self._ends = _ends(model, self._tokenizer)

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        stream = iter(requests)
        while window := list(itertools.islice(stream, _WINDOW_BATCHES * self._settings.batch_size)):
            encoded = [(request, self._encode(request)) for request in window]
            for request, ids in encoded:
                if len(ids) >= self._context:
                    error = f"the conversation has {len(ids):,} tokens, {self._settings.name} holds {self._context:,}"
                    yield ChatReply(request.key, finish_reason="error", prompt_tokens=len(ids), error=error)
            fitting = [(request, ids) for request, ids in encoded if len(ids) < self._context]
            # One call of `generate` has one length limit, one temperature and one set of stops.
            fitting.sort(key=lambda pair: (repr(_common(pair[0].sampling)), len(pair[1])))
            for _, alike in itertools.groupby(fitting, key=lambda pair: _common(pair[0].sampling)):
                while batch := list(itertools.islice(alike, self._settings.batch_size)):
                    yield from self._answer(batch)

    def close(self) -> None:
        import gc

        import torch

        del self._model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _encode(self, request: ChatRequest) -> list[int]:
        text = self._tokenizer.apply_chat_template(
            [dict(message) for message in with_system(request.messages, self._settings.system)],
            tokenize=False,
            add_generation_prompt=True,
        )
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _answer(self, batch: list[tuple[ChatRequest, list[int]]]) -> Iterator[ChatReply]:
        """The batch's replies; in two halves if it does not fit into memory."""
        import torch

        try:
            replies = self._generate(batch)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            if len(batch) == 1:
                request, ids = batch[0]
                what = f"out of memory on one conversation of {len(ids):,} tokens: {str(error).splitlines()[0]}"
                yield ChatReply(request.key, finish_reason="error", prompt_tokens=len(ids), error=what)
                return
            half = len(batch) // 2
            yield from self._answer(batch[:half])
            yield from self._answer(batch[half:])
            return
        yield from replies

    def _generate(self, batch: list[tuple[ChatRequest, list[int]]]) -> list[ChatReply]:
        import time

        import torch

        started = time.perf_counter()
        sampling = batch[0][0].sampling
        longest = max(len(ids) for _, ids in batch)
        pad = self._tokenizer.pad_token_id
        ids_BT = torch.tensor([[pad] * (longest - len(ids)) + ids for _, ids in batch], device=self._device)
        mask_BT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for _, ids in batch], device=self._device)
        options: dict[str, Any] = {}
        if sampling.temperature > 0:
            seeds = [request.sampling.seed for request, _ in batch]
            options["logits_processor"] = [_SampleByGumbel(sampling, seeds, self._device)]
        if sampling.stop:
            options["stopping_criteria"] = [_StopAt(sampling.stop, self._tokenizer, longest)]
        with torch.inference_mode():
            out_BT = self._model.generate(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                max_new_tokens=min(sampling.max_tokens, self._context - longest),
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=pad,
                eos_token_id=sorted(self._ends),
                **options,
            )
        seconds = (time.perf_counter() - started) / len(batch)
        return [
            self._reply(request, ids, new, seconds)
            for (request, ids), new in zip(batch, out_BT[:, longest:].tolist(), strict=True)
        ]

    def _reply(self, request: ChatRequest, ids: Sequence[int], new: Sequence[int], seconds: float) -> ChatReply:
        ended = next((place for place, token in enumerate(new) if token in self._ends), None)
        said = list(new if ended is None else new[:ended])
        text, stopped = _cut(str(self._tokenizer.decode(said, skip_special_tokens=True)), request.sampling.stop)
        return ChatReply(
            request.key,
            text,
            finish_reason="stop" if stopped or ended is not None else "length",
            prompt_tokens=len(ids),
            completion_tokens=len(said),
            seconds=seconds,
        )


class _SampleByGumbel:
    """Turns greedy decoding into sampling: the largest of logits plus Gumbel noise is a draw from their softmax.

    Each conversation has a generator of its own, so that its answer is a function of its seed alone.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int | None], device: torch.device) -> None:
        import torch

        self._temperature, self._top_p = sampling.temperature, sampling.top_p
        self._generators = [torch.Generator(device) for _ in seeds]
        for generator, seed in zip(self._generators, seeds, strict=True):
            if seed is None:
                generator.seed()
            else:
                generator.manual_seed(seed)

    def __call__(self, ids_BT: torch.Tensor, logits_BV: torch.Tensor) -> torch.Tensor:
        import torch

        scaled_BV = logits_BV.float() / self._temperature
        if self._top_p < 1:
            scaled_BV = keep_nucleus(scaled_BV, self._top_p)
        uniform_BV = torch.stack(
            [torch.rand(scaled_BV.shape[1], generator=draw, device=scaled_BV.device) for draw in self._generators]
        )
        return scaled_BV - torch.log(-torch.log(uniform_BV.clamp(1e-20, 1 - 1e-7)))


class _StopAt:
    """Ends a conversation when its answer holds a stop.

    transformers' own criterion looks across the border, at what the prompt ends with.
    """

    def __init__(self, stops: Sequence[str], tokenizer: Any, prompt_length: int) -> None:
        self._stops, self._tokenizer, self._prompt_length = stops, tokenizer, prompt_length
        self._tail = max(len(stop.encode()) for stop in stops)  # no token is shorter than a byte

    def __call__(self, ids_BT: torch.Tensor, logits_BV: torch.Tensor, **_: Any) -> torch.Tensor:
        import torch

        new_BT = ids_BT[:, max(self._prompt_length, ids_BT.shape[1] - self._tail) :]
        texts = self._tokenizer.batch_decode(new_BT, skip_special_tokens=True)
        done = [any(stop in text for stop in self._stops) for text in texts]
        return torch.tensor(done, device=ids_BT.device)


def keep_nucleus(logits_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits with all but the smallest set of tokens that holds `top_p` of the probability at minus infinity
    (Holtzman et al. 2020); the likeliest token always stays."""
    ordered_BV, places_BV = logits_BV.sort(dim=-1, descending=True)
    share_BV = ordered_BV.softmax(-1)
    outside_BV = share_BV.cumsum(-1) - share_BV >= top_p
    return logits_BV.masked_fill(outside_BV.scatter(-1, places_BV, outside_BV), float("-inf"))


def _common(sampling: Sampling) -> tuple[Any, ...]:
    return sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.stop


def _cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop in it, and whether there was one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _dtype(settings: HfModel, device: torch.device) -> Any:
    import torch

    named: dict[str, Any] = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return named.get(settings.precision, "auto" if device.type == "cuda" else torch.float32)


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end an answer: a model's generation settings may name more than its tokenizer does."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ends = set(named if isinstance(named, list) else [] if named is None else [named])
    return ends | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())
