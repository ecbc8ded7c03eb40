"""Vectors of texts by a language model. B texts of a batch, T tokens, D dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from squadron.core.work import take_turns

if TYPE_CHECKING:
    import torch

_READ_AT_ONCE = 2048
"""Tokens of one pass, with padding; a longer text is read in as many passes as it takes."""


def mean_states(model: Any, encoded: Sequence[Sequence[int]], adapter: str | None = None) -> np.ndarray:
    """The mean of each text's last hidden states, of length 1, [B, D]. `adapter` is the one that the texts are read
    with, where the model has any (`llm/decoding/adapters.py`). Texts of like lengths share passes, between which others
    have their turn."""
    import torch
    from torch.nn.functional import normalize

    order = sorted(range(len(encoded)), key=lambda place: len(encoded[place]))
    means: dict[int, torch.Tensor] = {}
    while order:
        take_turns()
        count = 1
        while count < len(order) and (count + 1) * len(encoded[order[count]]) <= _READ_AT_ONCE:
            count += 1
        some, order = order[:count], order[count:]
        with torch.inference_mode():
            means |= zip(some, _means(model, [encoded[place] for place in some], adapter), strict=True)
    return normalize(torch.stack([means[place] for place in range(len(encoded))]), dim=-1).cpu().numpy()


def _means(model: Any, texts: Sequence[Sequence[int]], adapter: str | None) -> torch.Tensor:
    """[B, D]."""
    from squadron.train.objectives.layout import padded

    ids_BT, mask_BT = (tensor.to(model.device) for tensor in padded(texts))
    if ids_BT.shape[1] > _READ_AT_ONCE:
        return _in_pieces(model, ids_BT, adapter)
    states_BTD = _states(model, adapter, input_ids=ids_BT, attention_mask=mask_BT)
    mean_BD: torch.Tensor = (states_BTD.float() * mask_BT[..., None]).sum(1) / mask_BT.sum(1, keepdim=True)
    return mean_BD


def _in_pieces(model: Any, ids_1T: torch.Tensor, adapter: str | None) -> torch.Tensor:
    """[1, D], of one long text."""
    import torch
    from transformers import DynamicCache

    cache, sums = DynamicCache(config=model.config), []
    for piece_1T in ids_1T.split(_READ_AT_ONCE, dim=1):
        take_turns()
        states_1TD = _states(model, adapter, input_ids=piece_1T, past_key_values=cache, use_cache=True)
        sums.append(states_1TD.float().sum(1))
    return torch.stack(sums).sum(0) / ids_1T.shape[1]


def _states(model: Any, adapter: str | None, **inputs: Any) -> torch.Tensor:
    """[B, T, D]."""
    if adapter is None:
        states_BTD: torch.Tensor = model.base_model(**inputs).last_hidden_state
        return states_BTD
    # Adapters are chosen by the forward pass of the whole model alone.
    names = [adapter] * len(inputs["input_ids"])
    last: torch.Tensor = model(
        **inputs, logits_to_keep=1, output_hidden_states=True, adapter_names=names
    ).hidden_states[-1]
    return last
