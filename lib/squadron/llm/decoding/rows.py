"""What a model keeps of conversations that it reads side by side: a cache whose rows come and go. B rows, T tokens,
V tokens of the vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_KNOWN_SETTINGS = {
    "_from_model_config", "transformers_version", "use_cache", "output_attentions", "output_hidden_states",
    "bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens",
    "do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
}  # fmt: skip
"""Generation settings that name no way of decoding but greedy, or that a request's own sampling takes the place of."""


def has_rows(model: Any) -> bool:
    """Whether `Rows` computes what the model's own `generate` would. Not for models with recurrent layers, which have
    a state in place of a cache, and not for ways of decoding that only `generate` knows."""
    import inspect

    from transformers import DynamicCache, GenerationMixin
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    # Phi-3's own preparation reads all again where a text outgrows the positions it was trained on: if those stretch.
    rope = getattr(model.config, "rope_parameters", None) or {}
    short_phi = model.config.model_type == "phi3" and rope.get("rope_type") != "longrope"
    takes = inspect.signature(model.forward).parameters.keys()
    attention = not getattr(model, "_is_stateful", False) and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=model.config).layers
    )
    return (
        attention
        and takes >= {"attention_mask", "position_ids", "past_key_values", "logits_to_keep"}
        and (type(model).prepare_inputs_for_generation is GenerationMixin.prepare_inputs_for_generation or short_phi)
        and model.generation_config.to_diff_dict().keys() <= _KNOWN_SETTINGS
    )


class Rows:
    """Conversations that a model reads side by side, and the keys and values of what it has read.

    All have as many columns; the shorter ones have a gap on the left. `adapters` names for each the adapter that it is
    read with, where the model has any (`llm/decoding/adapters.py`). A repetition penalty of the model's own settings
    applies.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], adapters: Sequence[str] | None = None) -> None:
        from transformers import DynamicCache, RepetitionPenaltyLogitsProcessor

        self._model, self._adapters = model, adapters
        self._cache: Any = DynamicCache(config=model.config)
        self._ids_BT, self._mask_BT = left_padded(prompts, model.device)
        self._lengths = [len(prompt) for prompt in prompts]
        penalty = model.generation_config.repetition_penalty or 1.0
        self._penalise = RepetitionPenaltyLogitsProcessor(penalty) if penalty != 1 else None

    @property
    def cells(self) -> int:
        """Rows times columns: what memory holds keys and values of."""
        return int(self._ids_BT.numel())

    def read(self, most: int | None = None) -> torch.Tensor | None:
        """Read what is new, and give the logits of each row's next token, [B, V]; at most `most` columns, and None
        while more are to be read."""
        start, end = self._cache.get_seq_length(), self._ids_BT.shape[1]
        upto = end if most is None else min(end, start + most)
        places_BT = (self._mask_BT[:, :upto].cumsum(-1) - 1).clamp(min=0)
        adapted = {} if self._adapters is None else {"adapter_names": self._adapters}
        read = self._model(
            input_ids=self._ids_BT[:, start:upto],
            attention_mask=self._mask_BT[:, :upto],
            position_ids=places_BT[:, start:],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            **adapted,
        )
        if upto < end:
            return None
        logits_BV: Any = read.logits[:, -1].float()
        return logits_BV if self._penalise is None else self._penalise(self._ids_BT, logits_BV)

    def append(self, tokens_B: torch.Tensor) -> None:
        """Add a token to each row."""
        import torch

        self._ids_BT = torch.cat([self._ids_BT, tokens_B[:, None]], dim=1)
        self._mask_BT = torch.cat([self._mask_BT, torch.ones_like(tokens_B)[:, None]], dim=1)
        self._lengths = [length + 1 for length in self._lengths]

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order, each as often as it is named; columns that are a gap in all of them go."""
        import torch

        if list(rows) == list(range(len(self._lengths))):
            return
        index: Any = torch.tensor(rows, device=self._ids_BT.device)
        self._cache.reorder_cache(index)
        self._ids_BT, self._mask_BT = self._ids_BT[index], self._mask_BT[index]
        self._lengths = [self._lengths[row] for row in rows]
        if self._adapters is not None:
            self._adapters = [self._adapters[row] for row in rows]
        self._widen(max(self._lengths))

    def take(self, rows: Sequence[int]) -> Rows:
        """These rows, in this order, by themselves."""
        taken = copy.copy(self)
        taken._cache = copy.copy(self._cache)
        taken._cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        taken.select(rows)
        return taken

    def join(self, others: Rows) -> None:
        """Add the rows of others beneath these; both have been read."""
        import torch

        columns = max(self._ids_BT.shape[1], others._ids_BT.shape[1])
        self._widen(columns)
        others._widen(columns)
        self._ids_BT = torch.cat([self._ids_BT, others._ids_BT])
        self._mask_BT = torch.cat([self._mask_BT, others._mask_BT])
        self._lengths = [*self._lengths, *others._lengths]
        if self._adapters is not None and others._adapters is not None:
            self._adapters = [*self._adapters, *others._adapters]
        for layer, other in zip(self._cache.layers, others._cache.layers, strict=True):
            layer.keys, layer.values = torch.cat([layer.keys, other.keys]), torch.cat([layer.values, other.values])

    def _widen(self, columns: int) -> None:
        """Have so many columns, by more or fewer of them on the left."""
        import torch
        from torch.nn.functional import pad

        gap = columns - self._ids_BT.shape[1]
        if gap == 0:
            return
        if gap > 0:
            self._ids_BT = torch.cat([self._ids_BT[:, :1].expand(-1, gap), self._ids_BT], dim=1)
        else:
            self._ids_BT = self._ids_BT[:, -gap:]
        self._mask_BT = pad(self._mask_BT, (gap, 0))
        for layer in self._cache.layers:
            _widen_layer(layer, gap)


def _widen_layer(layer: Any, gap: int) -> None:
    """Add so many columns on the left of a layer's keys and values, or take them away if negative. A sliding window
    holds the last columns only."""
    from torch.nn.functional import pad

    columns = held = layer.get_seq_length() + gap
    if layer.is_sliding:
        layer.cumulative_length = columns
        held = min(columns, layer.sliding_window - 1)
    more = held - layer.keys.shape[-2]
    layer.keys, layer.values = pad(layer.keys, (0, 0, more, 0)), pad(layer.values, (0, 0, more, 0))


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of one length, [B, T], and a mask that is 1 where they are. Padding is never attended to; it repeats a
    prompt's first token, so that a repetition penalty finds no token that was not said."""
    import torch

    longest = max(map(len, prompts))
    gaps = [longest - len(prompt) for prompt in prompts]
    ids = [[prompt[0]] * gap + list(prompt) for prompt, gap in zip(prompts, gaps, strict=True)]
    mask = [[0] * gap + [1] * (longest - gap) for gap in gaps]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
