"""Vectors of texts by a language model. B texts of a batch, T tokens, D dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def mean_states(model: Any, encoded: Sequence[Sequence[int]], adapter: str | None = None) -> np.ndarray:
    """The mean of each text's last hidden states, of length 1, [B, D]. `adapter` is the one that the texts are read
    with, where the model has any (`llm/decoding/adapters.py`)."""
    import torch
    from torch.nn.functional import normalize

    from squadron.train.objectives.layout import padded

    ids_BT, mask_BT = (tensor.to(model.device) for tensor in padded(encoded))
    with torch.inference_mode():
        if adapter is None:
            states_BTD = model.base_model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        else:  # adapters are chosen by the forward pass of the whole model alone
            states_BTD = model(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                logits_to_keep=1,
                output_hidden_states=True,
                adapter_names=[adapter] * len(encoded),
            ).hidden_states[-1]
        mean_BD: torch.Tensor = (states_BTD.float() * mask_BT[..., None]).sum(1) / mask_BT.sum(1, keepdim=True)
        return normalize(mean_BD, dim=-1).cpu().numpy()
