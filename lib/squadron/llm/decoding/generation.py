"""Decoding: how a model of transformers goes on from a batch of prompts. B rows of a batch, T tokens, V tokens of the
vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from squadron.llm.chat import Sampling

if TYPE_CHECKING:
    import torch

Score = Callable[["torch.Tensor", Sequence[int]], "torch.Tensor"]
"""What the next token has the most of, [B, V], from logits [B, V] and which prompt each of their rows goes on from."""
Ended = Callable[[Sequence[int]], bool]
"""Whether an answer, of at least one token, is over."""

_KNOWN_SETTINGS = {
    "_from_model_config", "transformers_version", "use_cache", "output_attentions", "output_hidden_states",
    "bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens",
    "do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
}  # fmt: skip
"""Generation settings that name no way of decoding but greedy, or that a request's own sampling takes the place of."""


def generate(
    model: Any, prompts: Sequence[Sequence[int]], limits: Sequence[int], score: Score, ended: Ended
) -> list[list[int]]:
    """The tokens that `model` adds to each prompt: to the one that ends the answer, inclusive, or as many as its limit.

    The next token is the one of the largest score. Equal prompts are read once, and what has ended is computed no
    longer, where the model's cache of keys and values can be taken apart by rows; other models run transformers' own
    `generate`. The answers are the same. A repetition penalty of the model's own settings applies.
    """
    import torch

    decode = _by_rows if has_rows(model) else _by_transformers
    with torch.inference_mode():
        return decode(model, prompts, limits, score, ended)


def sampler(sampling: Sampling, seeds: Sequence[int | None], device: torch.device) -> Score:
    """Scores whose largest is the likeliest token at temperature 0, else a draw: of logits plus Gumbel noise, the
    largest is a draw from their softmax.

    Each prompt has a generator of its own, so that its answer is a function of its seed alone.
    """
    import torch

    if sampling.temperature == 0:
        return lambda logits_BV, rows: logits_BV
    generators = [make_generator(seed, device) for seed in seeds]

    def score(logits_BV: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        scaled_BV = logits_BV / sampling.temperature
        if sampling.top_p < 1:
            scaled_BV = keep_nucleus(scaled_BV, sampling.top_p)
        size = logits_BV.shape[1]
        return scaled_BV + torch.stack([gumbel(size, generators[row]) for row in rows])

    return score


def make_generator(seed: int | None, device: torch.device) -> torch.Generator:
    """A generator of its own for one answer; without a seed, of a random one."""
    import torch

    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def gumbel(size: int, generator: torch.Generator) -> torch.Tensor:
    """Gumbel noise, [size]: added to logits it makes the largest a draw from their softmax."""
    import torch

    uniform_V = torch.rand(size, generator=generator, device=generator.device)
    return -torch.log(-torch.log(uniform_V.clamp(1e-20, 1 - 1e-7)))


def keep_nucleus(logits_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits with all but the smallest set of tokens that holds `top_p` of the probability at minus infinity
    (Holtzman et al. 2020); the likeliest token always stays."""
    ordered_BV, places_BV = logits_BV.sort(dim=-1, descending=True)
    share_BV = ordered_BV.softmax(-1)
    outside_BV = share_BV.cumsum(-1) - share_BV >= top_p
    return logits_BV.masked_fill(outside_BV.scatter(-1, places_BV, outside_BV), float("-inf"))


def ending(tokenizer: Any, ends: Collection[int], stops: Sequence[str]) -> Ended:
    """An answer is over when its last token is one of `ends`, or its text holds a stop.

    transformers' own criterion looks across the border, at what the prompt ends with.
    """
    # No token is shorter than a byte; one more, since some tokenizers drop a space at the start of what they decode.
    tail = max((len(stop.encode()) for stop in stops), default=0) + 1

    def ended(answer: Sequence[int]) -> bool:
        if answer[-1] in ends or not stops:
            return answer[-1] in ends
        text = tokenizer.decode(answer[-tail:], skip_special_tokens=True)
        return any(stop in text for stop in stops)

    return ended


def has_rows(model: Any) -> bool:
    """Whether `Rows` computes what the model's own `generate` would."""
    import inspect

    from transformers import DynamicCache, GenerationMixin
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    takes = inspect.signature(model.forward).parameters.keys()
    attention = not getattr(model, "_is_stateful", False) and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=model.config).layers
    )
    return (
        attention
        and takes >= {"attention_mask", "position_ids", "past_key_values", "logits_to_keep"}
        and type(model).prepare_inputs_for_generation is GenerationMixin.prepare_inputs_for_generation
        and model.generation_config.to_diff_dict().keys() <= _KNOWN_SETTINGS
    )


def _by_rows(
    model: Any, prompts: Sequence[Sequence[int]], limits: Sequence[int], score: Score, ended: Ended
) -> list[list[int]]:
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(tuple(prompt) for prompt in prompts))}
    batch = Rows(model, list(places))
    logits_BV = batch.read()
    shared = [places[tuple(prompt)] for prompt in prompts]
    batch.select(shared)
    logits_BV = logits_BV[shared]
    answers: list[list[int]] = [[] for _ in prompts]
    running = list(range(len(prompts)))
    while True:
        tokens_B = score(logits_BV, running).argmax(-1)
        for row, token in zip(running, tokens_B.tolist(), strict=True):
            answers[row].append(token)
        going = [
            place for place, row in enumerate(running) if len(answers[row]) < limits[row] and not ended(answers[row])
        ]
        if not going:
            return answers
        batch.append(tokens_B)
        batch.select(going)
        running = [running[place] for place in going]
        logits_BV = batch.read()


class Rows:
    """Conversations that a model reads side by side, and what it keeps of those that it has read.

    `adapters` names for each the adapter that it is read with, where the model has any (`llm/decoding/adapters.py`).
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], adapters: Sequence[str] | None = None) -> None:
        from transformers import DynamicCache, RepetitionPenaltyLogitsProcessor

        self._model, self._adapters = model, adapters
        self._cache: Any = DynamicCache(config=model.config)
        self._ids_BT, self._mask_BT = _padded(prompts, model.device)
        penalty = model.generation_config.repetition_penalty or 1.0
        self._penalise = RepetitionPenaltyLogitsProcessor(penalty) if penalty != 1 else None

    def read(self) -> torch.Tensor:
        """Read what is new, and give the logits of each row's next token, [B, V]."""
        new = self._ids_BT.shape[1] - self._cache.get_seq_length()
        places_BT = (self._mask_BT.cumsum(-1) - 1).clamp(min=0)
        adapted = {} if self._adapters is None else {"adapter_names": self._adapters}
        read = self._model(
            input_ids=self._ids_BT[:, -new:],
            attention_mask=self._mask_BT,
            position_ids=places_BT[:, -new:],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            **adapted,
        )
        logits_BV: Any = read.logits[:, -1].float()
        return logits_BV if self._penalise is None else self._penalise(self._ids_BT, logits_BV)

    def append(self, tokens_B: torch.Tensor) -> None:
        """Add a token to each row."""
        import torch

        self._ids_BT = torch.cat([self._ids_BT, tokens_B[:, None]], dim=1)
        self._mask_BT = torch.cat([self._mask_BT, torch.ones_like(tokens_B)[:, None]], dim=1)

    def select(self, rows: list[int]) -> None:
        """Go on with these rows, in this order, each as often as it is named."""
        import torch

        if rows == list(range(len(self._ids_BT))):
            return
        index: Any = torch.tensor(rows, device=self._ids_BT.device)
        self._cache.reorder_cache(index)
        self._ids_BT, self._mask_BT = self._ids_BT[index], self._mask_BT[index]
        if self._adapters is not None:
            self._adapters = [self._adapters[row] for row in rows]

    def join(self, others: Rows) -> None:
        """Go on with the rows of others beneath these; both have been read. Gaps are on the left, as everywhere."""
        import torch

        longest = max(self._ids_BT.shape[1], others._ids_BT.shape[1])
        self._widen(longest)
        others._widen(longest)
        self._ids_BT = torch.cat([self._ids_BT, others._ids_BT])
        self._mask_BT = torch.cat([self._mask_BT, others._mask_BT])
        if self._adapters is not None and others._adapters is not None:
            self._adapters = [*self._adapters, *others._adapters]
        for layer, other in zip(self._cache.layers, others._cache.layers, strict=True):
            layer.keys, layer.values = torch.cat([layer.keys, other.keys]), torch.cat([layer.values, other.values])

    def trim(self) -> None:
        """Let go of columns on the left that are a gap in every row."""
        gap = int(self._mask_BT.any(0).long().argmax())
        if gap == 0:
            return
        self._ids_BT, self._mask_BT = self._ids_BT[:, gap:], self._mask_BT[:, gap:]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[:, :, gap:], layer.values[:, :, gap:]

    def _widen(self, length: int) -> None:
        import torch
        from torch.nn.functional import pad

        gap = length - self._ids_BT.shape[1]
        if gap == 0:
            return
        self._ids_BT = torch.cat([self._ids_BT[:, :1].expand(-1, gap), self._ids_BT], dim=1)
        self._mask_BT = pad(self._mask_BT, (gap, 0))
        for layer in self._cache.layers:
            layer.keys, layer.values = pad(layer.keys, (0, 0, gap, 0)), pad(layer.values, (0, 0, gap, 0))


def _by_transformers(
    model: Any, prompts: Sequence[Sequence[int]], limits: Sequence[int], score: Score, ended: Ended
) -> list[list[int]]:
    import torch

    ids_BT, mask_BT = _padded(prompts, model.device)
    length, rows = ids_BT.shape[1], range(len(prompts))

    def over(row: int, answer: Sequence[int]) -> bool:
        return len(answer) >= limits[row] or ended(answer)

    def all_over(ids_BT: torch.Tensor, scores_BV: torch.Tensor, **_: Any) -> torch.Tensor:
        answers = ids_BT[:, length:].tolist()
        return torch.tensor([over(row, answers[row]) for row in rows], device=ids_BT.device)

    out_BT = model.generate(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        max_new_tokens=max(limits),
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        logits_processor=[lambda ids_BT, logits_BV: score(logits_BV, rows)],
        stopping_criteria=[all_over],
    )
    answers: list[list[int]] = out_BT[:, length:].tolist()
    # What follows an answer's end is padding, or was computed while others went on.
    return [
        answer[: next(count for count in range(1, len(answer) + 1) if over(row, answer[:count]))]
        for row, answer in enumerate(answers)
    ]


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of one length, [B, T], and a mask that is 1 where they are. Padding is never attended to; it repeats a
    prompt's first token, so that a repetition penalty finds no token that was not said."""
    import torch

    longest = max(map(len, prompts))
    gaps = [longest - len(prompt) for prompt in prompts]
    ids = [[prompt[0]] * gap + list(prompt) for prompt, gap in zip(prompts, gaps, strict=True)]
    mask = [[0] * gap + [1] * (longest - gap) for gap in gaps]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
